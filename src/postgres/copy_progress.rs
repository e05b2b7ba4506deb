//! How far pg_basebackup has come, by what it says.

/// What it complained of is kept no longer than this: it says things once.
const KEPT: usize = 4096;

/// What pg_basebackup says while it copies: how far it is, and everything else.
#[derive(Debug, Default)]
pub struct CopySaid {
    complaints: String,
}

impl CopySaid {
    /// Takes in a line; how far the copy is, if the line says so, such as `12 of 340 MB`.
    pub fn hear(&mut self, line: &str) -> Option<String> {
        let far = far(line);
        if far.is_none() && self.complaints.len() + line.len() < KEPT {
            self.complaints += line;
            self.complaints.push('\n');
        }
        far
    }

    /// Everything but how far it was.
    pub fn complaints(&self) -> &str {
        &self.complaints
    }
}

/// Of a line such as `  12345/348160 kB (3%), 0/1 tablespace (...ata.clone/base/5/1259)`. The total is an estimate, which a database that grows exceeds.
fn far(line: &str) -> Option<String> {
    let (numbers, _) = line.split_once(" kB (")?;
    let (done, total) = numbers.trim().split_once('/')?;
    let (done, total) = (done.parse::<u64>().ok()?, total.parse::<u64>().ok()?);
    Some(format!("{} of {} MB", done >> 10, total.max(done) >> 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_is_no_complaint_and_any_other_is_kept() {
        let mut said = CopySaid::default();
        assert_eq!(said.hear(" 34816/348160 kB (10%), 0/1 tablespace (...clone/base/5/1259)").as_deref(), Some("34 of 340 MB"));
        assert_eq!(said.hear("400000/348160 kB (100%), 1/1 tablespace").as_deref(), Some("390 of 390 MB"), "it has grown");
        assert_eq!(said.hear("pg_basebackup: error: could not write: No space left on device"), None);
        assert_eq!(said.hear("waiting for checkpoint"), None);
        assert_eq!(said.complaints(), "pg_basebackup: error: could not write: No space left on device\nwaiting for checkpoint\n");
    }

    #[test]
    fn who_complains_without_end_does_not_fill_the_memory() {
        let mut said = CopySaid::default();
        (0..1000).for_each(|_| assert_eq!(said.hear("a line of complaint"), None));
        assert!(said.complaints().len() <= KEPT);
    }
}
