//! What the end-to-end tests share: a sealed repository with the fake CLI ([`sandbox`]), git without the user's
//! configuration ([`git`]), polling with a ceiling ([`wait`]), a look at the process table ([`processes`]), and a boss that
//! speaks JSON lines ([`json_lines`]). What only one group of tests needs stays with that group.

// Each test binary uses another part of this.
#![allow(dead_code)]

pub mod git;
pub mod json_lines;
pub mod processes;
pub mod sandbox;
pub mod wait;
