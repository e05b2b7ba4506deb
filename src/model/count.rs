//! Numbers of things for people.

/// `1 pack`, `0 packs`, `7 packs`, for things whose names take an `s`.
pub fn counted(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_not_called_things() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "WAL file")), ["0 WAL files", "1 WAL file", "2 WAL files"]);
    }
}
