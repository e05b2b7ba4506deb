//! Lengths of time for people.

use jiff::SignedDuration;

/// The largest unit that fits: `12 s`, `5 min`, `3 h`, `6 d`.
pub fn length_in_words(length: SignedDuration) -> String {
    let seconds = length.as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_unit_that_fits_is_named() {
        let words = |seconds| length_in_words(SignedDuration::from_secs(seconds));
        assert_eq!([-5, 0, 59, 60, 3599].map(words), ["0 s", "0 s", "59 s", "1 min", "59 min"]);
        assert_eq!([3600, 86_399, 86_400, 863_999].map(words), ["1 h", "23 h", "1 d", "9 d"]);
    }
}
