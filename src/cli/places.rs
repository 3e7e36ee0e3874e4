//! The options for the locations of the settings and of the state. Every command accepts them.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Clone, Args)]
pub(super) struct Places {
    /// Settings file [default: ~/.config/orchestrator-boss/config.toml, if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// State directory [default: .orchestrator in the repository's main worktree]
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
}
