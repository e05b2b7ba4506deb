//! How far pg_basebackup has come, by what it says.

use std::collections::VecDeque;

/// So many of its last complaints are kept: why it ends it says at the end.
const KEPT: usize = 6;

/// What pg_basebackup says while it copies: how far it is, and everything else.
#[derive(Debug, Default)]
pub struct CopySaid {
    complaints: VecDeque<String>,
}

impl CopySaid {
    /// Takes in a line; how far the copy is, if the line says so, such as `12 of 340 MB`.
    pub fn hear(&mut self, line: &str) -> Option<String> {
        let far = far(line);
        if far.is_none() && !line.trim().is_empty() {
            self.complaints.push_back(line.trim().to_owned());
            let surplus = self.complaints.len().saturating_sub(KEPT);
            self.complaints.drain(..surplus);
        }
        far
    }

    /// The last that it said but how far it was, in one line.
    pub fn complaints(&self) -> String {
        Vec::from_iter(self.complaints.iter().map(String::as_str)).join(" | ")
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
        assert_eq!(said.complaints(), "pg_basebackup: error: could not write: No space left on device | waiting for checkpoint");
    }

    #[test]
    fn of_many_complaints_the_last_ones_are_kept() {
        let mut said = CopySaid::default();
        (0..1000).for_each(|n| assert_eq!(said.hear(&format!("warning: file {n} is special")), None));
        said.hear("pg_basebackup: error: No space left on device");
        assert!(said.complaints().starts_with("warning: file 995 is special | "), "{}", said.complaints());
        assert!(said.complaints().ends_with("| pg_basebackup: error: No space left on device"), "{}", said.complaints());
    }
}
