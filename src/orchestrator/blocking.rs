//! Runs blocking work outside the runtime's threads.

use super::error::OrchestratorError;

/// Runs blocking work, such as git or disk access, on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OrchestratorError> + Send + 'static,
) -> Result<T, OrchestratorError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(OrchestratorError::ShuttingDown),
    }
}
