//! The order of words: verb first and noun first are the same command, and what is no word gets a suggestion.

use crate::spilo::spilo;

/// Both orders reach the same command, which shows in the same complaint about its arguments.
#[test]
fn verb_first_and_noun_first_are_the_same() {
    let pairs = [
        (&["create", "cluster", "X"][..], &["cluster", "create", "X"][..]),
        (&["delete", "cluster", "orders"], &["cluster", "delete", "orders"]),
        (&["status", "orders"], &["cluster", "status", "orders"]),
        (&["list"], &["cluster", "list"]),
        (&["plan", "orders"], &["cluster", "plan", "orders"]),
        (&["apply", "orders"], &["cluster", "apply", "orders"]),
        (&["dsn", "orders"], &["cluster", "dsn", "orders"]),
        (&["connect", "orders"], &["cluster", "connect", "orders"]),
        (&["switchover", "orders"], &["cluster", "switchover", "orders"]),
        (&["scale", "orders", "4"], &["cluster", "scale", "orders", "4"]),
        (&["logs", "orders"], &["cluster", "logs", "orders"]),
    ];
    for (verb_first, noun_first) in pairs {
        let (verb, noun) = (spilo(verb_first), spilo(noun_first));
        assert_eq!((verb.code, first_line(&verb.stderr)), (noun.code, first_line(&noun.stderr)), "{verb_first:?}");
        assert_ne!(verb.code, 0, "{verb_first:?}");
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[test]
fn a_misspelt_command_gets_a_suggestion() {
    spilo(&["statsu", "orders"]).exits(2).says("unrecognized subcommand 'statsu'").says("'status'");
    spilo(&["create", "clutser", "orders"]).exits(2).says("'cluster'");
    spilo(&["help", "exit-cods"]).exits(2).says("did you mean 'exit-codes'?");
}

#[test]
fn without_a_command_the_help_is_shown() {
    spilo(&[]).exits(2).says("Usage: spilo");
}

#[test]
fn dry_run_is_another_word_for_plan() {
    let plan = spilo(&["create", "cluster", "orders", "--dry-run"]);
    plan.exits(1).says("the Docker engine does not answer");
    spilo(&["create", "cluster", "orders", "--exit-code"]).exits(2).says("--plan");
}
