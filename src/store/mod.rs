//! Everything on disk: the journal that several servers share, the state file for people and bosses, the folders of
//! the workers, and which server is alive.
//!
//! Files have one writer each, or a lock. Folders of ours are 0700, files 0600. No value from the environment is
//! written. This room decides nothing.

pub mod generation;
pub mod history;
pub mod journal;
mod mend;
pub mod reader;
mod rebuild;
pub mod state_file;
