//! Cancels jobs. An accepted `scancel` is no proof: a controller that stops soon afterwards may have the job in its
//! queue again when it comes back. So the caller repeats the cancellation until [`super::observe()`] reports the job as
//! ended or gone.

use std::ffi::OsString;

use super::command::{Answer, Engine};

/// Error texts about a job that no longer needs to be cancelled.
const OVER: [&str; 2] = ["invalid job id", "already completing or completed"];

/// Cancels every job with this name, which no job of another user has. Succeeds if there is none, or if it has ended.
/// Jobs are not cancelled by number: a controller that was restarted with an older state may give the number to another
/// job.
pub async fn cancel_by_name(engine: &Engine, name: &str) -> Result<(), String> {
    match engine.ask("scancel", &[OsString::from(format!("--name={name}"))]).await {
        Answer::Refused { text, .. } if is_over(&text) => Ok(()),
        answer => answer.output().map(drop),
    }
}

/// Returns whether each part of a refusal is about a job that has ended.
fn is_over(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.split("; ").all(|part| OVER.iter().any(|over| part.contains(over)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ended_jobs_are_no_failure() {
        let over = "Kill job error on job id 9: Invalid job id specified";
        assert!(is_over(over));
        assert!(is_over(&format!("{over}; Kill job error on job id 8: Job/step already completing or completed")));
        assert!(!is_over(&format!("{over}; Kill job error on job id 8: Access/permission denied")));
        assert!(!is_over(""));
    }
}
