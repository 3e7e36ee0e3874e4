//! Renders the hints of errors and blocked tasks as tool calls for the boss.

use crate::mission::hint::{Advice, Hint, Hinted};

/// Returns a text with its hints in one line.
pub(super) fn line(advice: &Advice) -> String {
    advice.line(call)
}

/// Returns an error with its causes and hints in one line.
pub(super) fn of(error: &dyn Hinted) -> String {
    line(&Advice::of(error))
}

fn call(hint: &Hint) -> String {
    match hint {
        Hint::Retry(worker) => format!("retry_worker {worker}"),
        Hint::Cancel(worker) => format!("cancel_worker {worker}"),
        Hint::Message(worker) => format!("send_message_to_worker {worker}"),
        Hint::WaitFor(worker) => format!("wait_for_worker {worker}"),
        Hint::Integrate(worker) => format!("integrate_worker {worker}"),
        Hint::CreateWorkers => "create some with batch_create_workers".to_owned(),
        Hint::ListWorkers => "list all with list_worker_missions".to_owned(),
        Hint::CheckBackends => "see which are ready with get_backend_status".to_owned(),
        Hint::RemoveWorktree(path) => format!("remove_worktree with the path {path}"),
        Hint::OnHost(host) => format!("ask the user to start their agent on {host}"),
        // A setting may widen what agents may do, so a boss must not change it by itself.
        Hint::Set(_) => format!("ask the user to {}", hint.words()),
        Hint::IntegrateUnfinished { .. } | Hint::Force(_) | Hint::KeepBranch | Hint::Run(_) | Hint::Do(_) => {
            hint.words()
        }
    }
}
