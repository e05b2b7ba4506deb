//! Completion scripts for the three shells.

use std::process::{Command, Stdio};

use crate::spilo::spilo;

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = spilo(&["completion", shell]).exits(0).prints("switchover").prints("doctor").stdout;
        assert!(script.len() > 1000, "{shell}");
    }
    spilo(&["completion", "tcsh"]).exits(2).says("[possible values: bash, zsh, fish]");
}

#[test]
fn bash_reads_its_script_and_completes_a_command() {
    let script = spilo(&["completion", "bash"]).exits(0).stdout;
    let trial = format!("{script}\nCOMP_WORDS=(spilo sw); COMP_CWORD=1; _spilo spilo sw spilo; echo \"${{COMPREPLY[*]}}\"");
    let output = Command::new("bash")
        .args(["--norc", "-c", &trial])
        .stdin(Stdio::null())
        .output()
        .expect("bash is on every machine that builds this");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "switchover", "{}", String::from_utf8_lossy(&output.stderr));
}
