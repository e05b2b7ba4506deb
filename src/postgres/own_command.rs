//! Commands of ours that PostgreSQL runs: `archive_command` and `restore_command`.

use std::{
    io,
    path::{Path, PathBuf},
};

/// This program with these words, as PostgreSQL hands them to a shell. What it puts in the place of a percent sign (`%f`, `%p`) is for the
/// caller to add.
///
/// # Errors
/// When the program's file is not known, or a word cannot be written on a command line.
pub fn command(words: &[String]) -> io::Result<String> {
    line(&program()?, words)
}

/// The running program's file. It may have been replaced under us; then another version lies in its place.
fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}

fn line(program: &Path, words: &[String]) -> io::Result<String> {
    let program = program.to_string_lossy();
    let words = [&*program].into_iter().chain(words.iter().map(String::as_str));
    let line = shlex::try_join(words).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(line.replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_finds_the_program_and_postgresql_its_percent_signs() {
        let line = |program: &str, words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            line(Path::new(program), &words).unwrap()
        };
        assert_eq!(line("/usr/bin/spilo", &[]), "/usr/bin/spilo");
        let quoted = line("/my programs/100%/spilo", &["wal", "--store=file:///srv/100%", "--key=it's"]);
        assert_eq!(quoted, "'/my programs/100%%/spilo' wal '--store=file:///srv/100%%' \"--key=it's\"");
        assert!(program().unwrap().is_absolute());
    }
}
