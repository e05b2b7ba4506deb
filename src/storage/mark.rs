//! The mark of a store: tells it from an empty place, from what another version keeps, and from every other store.

use std::io;

/// What it begins with. What follows is by chance.
const FORMAT: &str = "a store of spilo, format 1, ";

/// The mark of a new store.
pub fn new() -> io::Result<String> {
    Ok(format!("{FORMAT}{}\n", chance()?))
}

/// Whether this version knows what is kept there. `object` holds the mark.
///
/// # Errors
/// The sentence that says it does not.
pub fn check(object: &str, mark: &[u8]) -> Result<(), String> {
    if mark.starts_with(FORMAT.as_bytes()) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&mark[..mark.len().min(100)]).into_owned();
    let hint = "hint: a newer version of spilo may know it";
    Err(format!("its '{object}' says '{}', which this version does not know; {hint}", said.trim()))
}

/// What nobody else has.
pub fn chance() -> io::Result<String> {
    let mut chance = [0; 16];
    getrandom::fill(&mut chance).map_err(|error| io::Error::other(format!("no random numbers: {error}")))?;
    Ok(hex::encode(chance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_format_that_is_known_is_taken() {
        check("m", new().unwrap().as_bytes()).unwrap();
        for other in ["", "a store of spilo, format 10, x\n", "a store of spilo, format 2, x\n", "a store of spilo, format 1"] {
            let told = check("m", other.as_bytes()).unwrap_err();
            assert!(told.contains("'m'") && told.contains(other.trim()), "{told}");
        }
    }
}
