//! Next steps that an error suggests, as values beside its text. The edge that shows an error renders them: `mcp` as
//! calls of tools, `cli` as commands. No text below those rooms names a tool or a command of this program.

use std::error::Error;

use super::causes::with_causes;

/// A next step for the boss or the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    Retry(String),
    Cancel(String),
    /// Send this worker a message.
    Message(String),
    /// Wait until this worker has settled.
    WaitFor(String),
    Integrate(String),
    /// Read the diff of this worker, which did not complete, and integrate its branch by name.
    IntegrateUnfinished {
        worker: String,
        branch: String,
    },
    CreateWorkers,
    ListWorkers,
    CheckBackends,
    RemoveWorktree(String),
    /// Repeat the call with `force`, which keeps this in a salvage ref.
    Force(&'static str),
    /// Repeat the call without deleting the branch.
    KeepBranch,
    /// Do the same on this host.
    OnHost(String),
    /// Run this command in a shell.
    Run(String),
    /// Change this setting.
    Set(&'static str),
    /// Anything else, as an imperative clause without a full stop.
    Do(String),
}

impl Hint {
    /// Returns a hint in free words.
    pub fn to(words: impl Into<String>) -> Self {
        Self::Do(words.into())
    }

    /// Returns the hint in words that name no tool and no command of this program.
    pub fn words(&self) -> String {
        match self {
            Self::Retry(worker) => format!("retry {worker}"),
            Self::Cancel(worker) => format!("cancel {worker}"),
            Self::Message(worker) => format!("send {worker} a message"),
            Self::WaitFor(worker) => format!("wait until {worker} has settled"),
            Self::Integrate(worker) => format!("integrate {worker}"),
            Self::IntegrateUnfinished { branch, .. } => {
                format!("read its diff and integrate branch {branch} by its name")
            }
            Self::CreateWorkers => "create workers".to_owned(),
            Self::ListWorkers => "list the workers".to_owned(),
            Self::CheckBackends => "check the backends".to_owned(),
            Self::RemoveWorktree(path) => format!("remove the worktree {path}"),
            Self::Force(what) => format!("use `force`, which keeps {what} in a salvage ref"),
            Self::KeepBranch => "leave out `delete_branch`".to_owned(),
            Self::OnHost(host) => format!("run this on {host}"),
            Self::Run(command) => format!("run `{command}`"),
            Self::Set(setting) => format!("set `{setting}` in the settings file"),
            Self::Do(words) => words.clone(),
        }
    }
}

/// An error that can suggest next steps.
pub trait Hinted: Error {
    fn hints(&self) -> Vec<Hint>;
}

/// A text with its next steps, for a view that an edge renders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Advice {
    pub text: String,
    pub hints: Vec<Hint>,
}

impl Advice {
    pub fn new(text: impl Into<String>, hints: Vec<Hint>) -> Self {
        Self { text: text.into(), hints }
    }

    pub fn of(error: &dyn Hinted) -> Self {
        Self::new(with_causes(error), error.hints())
    }

    pub fn line(&self, render: impl Fn(&Hint) -> String) -> String {
        joined(&self.text, self.hints.iter().map(render))
    }
}

/// Returns the error with its causes and its hints in plain words, in one line.
pub fn with_hints(error: &dyn Hinted) -> String {
    Advice::of(error).line(Hint::words)
}

/// Appends rendered hints to a text: `cannot X: cause; do this, or do that`.
fn joined(text: &str, hints: impl Iterator<Item = String>) -> String {
    let hints: Vec<String> = hints.collect();
    if hints.is_empty() { text.to_owned() } else { format!("{text}; {}", hints.join(", or ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot remove a: it is in use")]
    struct InUse(#[source] std::io::Error);

    impl Hinted for InUse {
        fn hints(&self) -> Vec<Hint> {
            vec![Hint::Cancel("w-1".to_owned()), Hint::to("choose another")]
        }
    }

    #[test]
    fn hints_follow_the_causes() {
        let error = InUse(std::io::Error::other("busy"));
        assert_eq!(with_hints(&error), "cannot remove a: it is in use: busy; cancel w-1, or choose another");
        assert_eq!(joined("cannot", std::iter::empty()), "cannot");
    }
}
