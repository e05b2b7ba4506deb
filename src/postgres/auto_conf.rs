//! `postgresql.auto.conf`, which `ALTER SYSTEM` writes: one parameter on each line, in the encoding of whatever database it was said in, so that it
//! is no text but bytes. Pure.

/// The file, in the data directory.
pub const FILE: &str = "postgresql.auto.conf";

/// All lines but those of the parameters that `goes` says, which are named in lower case.
pub fn without_lines(found: &[u8], goes: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut left = Vec::with_capacity(found.len() + 1);
    found.split_inclusive(|byte| *byte == b'\n').filter(|line| !goes(&name(line))).for_each(|line| left.extend_from_slice(line));
    // Somebody is going to add lines.
    if left.last().is_some_and(|last| *last != b'\n') {
        left.push(b'\n');
    }
    left
}

fn name(line: &[u8]) -> String {
    let line = line.trim_ascii_start();
    let end = line.iter().position(|byte| *byte == b'=' || byte.is_ascii_whitespace()).unwrap_or(line.len());
    String::from_utf8_lossy(&line[..end]).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_by_the_names_of_their_parameters_and_the_others_stay_byte_for_byte() {
        let found =
            b"# a remark\nwork_mem = '8MB'\n Restore_Command='x'\ncluster_name = 'Stra\xdfe'\nprimary_conninfo = '\xfc'\n\nport = 1";
        let left = without_lines(found, |name| matches!(name, "restore_command" | "primary_conninfo"));
        assert_eq!(left, b"# a remark\nwork_mem = '8MB'\ncluster_name = 'Stra\xdfe'\n\nport = 1\n");
        assert_eq!(without_lines(b"", |_| false), b"");
    }
}
