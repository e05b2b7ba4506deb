//! Numbers of bytes, as people read and write them: in steps of 1024, named as PostgreSQL names them.

/// `0 B`, `16 kB`, `1.5 GB`.
pub fn bytes_in_words(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 || size.fract() < 0.05 { format!("{size:.0} {}", UNITS[unit]) } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// Reads `1000`, `64k`, `100M`, `2GB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" => 10,
        "M" | "MB" => 20,
        "G" | "GB" => 30,
        "T" | "TB" => 40,
        _ => return Err(format!("'{text}' has no unit of bytes: use k, M, G or T")),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).filter(|bytes| *bytes > 0);
    number.ok_or_else(|| format!("'{text}' is not a number of bytes (expected something like 100M)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [(0, "0 B"), (1023, "1023 B"), (16_384, "16 kB"), (1_610_612_736, "1.5 GB"), (3 << 50, "3072 TB")];
        sizes.iter().for_each(|(bytes, words)| assert_eq!(bytes_in_words(*bytes), *words));
    }

    #[test]
    fn bytes_are_read_with_and_without_a_unit() {
        for (text, bytes) in [("1000", 1000), ("64k", 65_536), ("64KB", 65_536), ("100M", 100 << 20), ("1g", 1 << 30), ("2TB", 2 << 40)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "-1", "5x", "M", "1.5G", "99999999999999999999", "99999999999G"] {
            assert!(parse_bytes(text).unwrap_err().contains(&format!("'{text}'")), "{text}");
        }
    }
}
