//! The other process: one for each live worker, which owns it for its whole attempt and lives on when the server dies.

pub mod assignment;
