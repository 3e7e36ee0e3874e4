//! Names of our jobs: `ob-<12 digits of the state directory's id>-<worker>-<attempt>`. Several state directories of one
//! user share a cluster, so a name without that id is not ours.

use uuid::Uuid;

use crate::mission::id::WorkerId;

/// Number of hexadecimal digits of the state directory's id in a name.
const DIGITS: usize = 12;

/// The names of the jobs of one state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobNames {
    prefix: String,
}

impl JobNames {
    pub fn of(state_directory: Uuid) -> Self {
        let digits = state_directory.simple().to_string();
        Self { prefix: format!("ob-{}-", &digits[..DIGITS]) }
    }

    pub fn name(&self, worker: &WorkerId, attempt: u32) -> String {
        format!("{}{worker}-{attempt}", self.prefix)
    }

    /// Returns the name of a job that verifies an integration.
    pub fn of_verification(&self) -> String {
        format!("{}verify-{}", self.prefix, Uuid::new_v4().simple())
    }

    /// Returns the worker and the attempt of a job. `None` for a job that is not ours.
    pub fn parse(&self, name: &str) -> Option<(WorkerId, u32)> {
        let (worker, attempt) = name.strip_prefix(&self.prefix)?.rsplit_once('-')?;
        let attempt = attempt.parse().ok().filter(|number: &u32| number.to_string() == attempt)?;
        Some((WorkerId::from_folder(worker)?, attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_are_recognised() {
        let names = JobNames::of(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
        let worker = WorkerId::new(3, "Fix parser");
        let name = names.name(&worker, 12);
        assert_eq!(name, "ob-0123456789ab-w-3-fix-parser-12");
        assert_eq!(names.parse(&name), Some((worker, 12)));
        for other in [
            names.of_verification().as_str(),
            "",
            "sbatch",
            "ob-0123456789ab-",
            "ob-0123456789ab-w-3-",
            "ob-0123456789ab--1",
            "ob-0123456789ab-x-3-1",
            "ob-0123456789ab-w-1",
            "ob-0123456789ab-w-3-+1",
            "ob-0123456789ab-w-3-01",
            "ob-0123456789ac-w-3-1",
            "xob-0123456789ab-w-3-1",
        ] {
            assert_eq!(names.parse(other), None, "{other}");
        }
    }
}
