//! What the name of a file in a database's directory says.

/// A file of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationFile {
    /// The relation's number.
    pub number: u32,
    /// Whether this is its `_init` fork, which only unlogged relations have.
    pub init: bool,
    /// Which of the files that the fork is divided into.
    pub segment: u32,
}

/// Reads `16384`, `16384.1`, `16384_fsm`, `16384_init.2`.
pub fn parse(name: &[u8]) -> Option<RelationFile> {
    let name = std::str::from_utf8(name).ok()?;
    let (name, segment) = match name.split_once('.') {
        Some((name, segment)) => (name, number(segment).filter(|segment| *segment > 0)?),
        None => (name, 0),
    };
    let (relation, fork) = name.split_once('_').unwrap_or((name, "main"));
    let known = matches!(fork, "main" | "fsm" | "vm" | "init") && (fork != "main" || !name.contains('_'));
    Some(RelationFile { number: number(relation).filter(|_| known)?, init: fork == "init", segment })
}

/// Whether it is a file of a temporary relation: `t3_16384`, `t3_16384_fsm.1`.
pub fn is_temporary(name: &[u8]) -> bool {
    let parts = name.strip_prefix(b"t").and_then(|name| {
        let at = name.iter().position(|byte| *byte == b'_')?;
        Some((&name[..at], &name[at + 1..]))
    });
    parts.is_some_and(|(session, rest)| is_number(session) && parse(rest).is_some())
}

/// Whether it is an OID, as directories of databases and tablespaces have for a name.
pub fn is_number(name: &[u8]) -> bool {
    std::str::from_utf8(name).ok().and_then(number).is_some()
}

fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_relations_are_known_by_their_names() {
        let file = |number, init, segment| Some(RelationFile { number, init, segment });
        assert_eq!(parse(b"16384"), file(16_384, false, 0));
        assert_eq!(parse(b"16384.17"), file(16_384, false, 17));
        assert_eq!(parse(b"16384_fsm"), file(16_384, false, 0));
        assert_eq!(parse(b"16384_vm.1"), file(16_384, false, 1));
        assert_eq!(parse(b"16384_init"), file(16_384, true, 0));
        for name in
            ["", "PG_VERSION", "16384_main", "16384_x", "16384.", "16384.0", "16384.x", "pg_filenode.map", "t3_16384", "99999999999"]
        {
            assert_eq!(parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn temporary_relations_are_told_apart() {
        for name in ["t3_16384", "t10_16384_fsm", "t3_16384.1"] {
            assert!(is_temporary(name.as_bytes()), "{name}");
        }
        for name in ["16384", "t_16384", "t3", "t3_x", "tx_16384", "table"] {
            assert!(!is_temporary(name.as_bytes()), "{name}");
        }
        assert!(is_number(b"5") && !is_number(b"") && !is_number(b"5x") && !is_number(b"+5"));
    }
}
