//! What `tablespace_map` says.

use super::error::BackupError;
use crate::backup::manifest::Tablespace;

/// Reads the lines `OID PATH`; line breaks and backslashes in a path have a backslash before them.
///
/// # Errors
/// When it is something else.
pub fn parse(map: &str) -> Result<Vec<Tablespace>, BackupError> {
    let wrong = || BackupError::Refused(format!("the server's tablespace_map cannot be read: {map:?}"));
    let mut found = Vec::new();
    for line in lines(map) {
        let (oid, location) = line.split_once(' ').ok_or_else(wrong)?;
        found.push(Tablespace { oid: oid.parse().map_err(|_| wrong())?, location: location.to_owned() });
    }
    Ok(found)
}

/// Lines, without the backslashes.
fn lines(map: &str) -> Vec<String> {
    let (mut lines, mut line, mut escaped) = (Vec::new(), String::new(), false);
    for letter in map.chars() {
        match letter {
            '\\' if !escaped => escaped = true,
            '\n' if !escaped => lines.push(std::mem::take(&mut line)),
            letter => {
                line.push(letter);
                escaped = false;
            }
        }
    }
    lines.push(line);
    lines.retain(|line| !line.is_empty());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_may_have_anything_in_them() {
        let found = parse("16384 /srv/fast disk\n16385 /srv/odd\\\nname\\\\x\n").unwrap();
        let found: Vec<_> = found.iter().map(|space| (space.oid, space.location.as_str())).collect();
        assert_eq!(found, [(16_384, "/srv/fast disk"), (16_385, "/srv/odd\nname\\x")]);
        assert_eq!(parse("").unwrap(), []);
        assert!(parse("nonsense").is_err() && parse("x /srv").is_err());
    }
}
