//! Slurm, through its own commands: submit, observe and cancel jobs. Each job runs one supervisor, on a node that sees the
//! attempt's folder under the same path.
//!
//! Only [`command`] starts a process. Nothing here decides whether a worker lives: [`crate::mission::life`] does, from
//! what [`observe()`] reads. Slurm does not guarantee that a job runs only once. The claim of the attempt ensures that
//! only one of the runs has an effect.

mod cancel;
mod check;
mod command;
mod minutes;
mod names;
mod observe;
mod partition;
mod quote;
mod reasons;
mod submit;
#[cfg(test)]
mod testing;
mod verification;

pub use cancel::cancel_by_name;
pub use check::{ClusterCheck, Partition, jobs_left};
pub use command::{Answer, Engine, LIMIT, NoAnswer};
pub use minutes::JobMinutes;
pub use names::JobNames;
pub use observe::{ObservedJob, job_of, observe};
pub use partition::{TimeLimit, node_answers, partition_limit, tracks_by_cgroup};
pub use reasons::{describe, lasting};
pub use submit::{JobError, JobRequest, Submission, SubmitError, job_with_name, submit};
pub use verification::{VerificationJob, end_verification, start_verification};
