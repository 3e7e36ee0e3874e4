//! The confinement of a worker, as the tools report it.

use serde::Serialize;

use crate::mcp::size;
use crate::mission::confined::{Confined, Confinement};

/// The confinement that the kernel enforces, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(in crate::mcp) enum ConfinedReport {
    Kernel {
        by: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        abi: Option<u32>,
        git: &'static str,
        /// True if signals to other processes are refused.
        signals: bool,
        reads: &'static str,
        network: &'static str,
        sockets: &'static str,
        cli_state: &'static str,
    },
    Off {
        why_not: String,
    },
}

impl ConfinedReport {
    pub fn of(confinement: &Confinement) -> Self {
        match confinement {
            Confinement::Kernel(Confined { by, abi, git, signals, reads, cli_state }) => Self::Kernel {
                by: by.as_str(),
                abi: *abi,
                git: git.as_str(),
                signals: *signals,
                reads: reads.as_str(),
                network: "all",
                sockets: "path sockets open",
                cli_state: cli_state.as_str(),
            },
            Confinement::Off { why } => Self::Off { why_not: size::line(why, 160) },
        }
    }
}
