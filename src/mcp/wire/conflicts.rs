//! Conflicts between branches, as many as fit.

use serde::Serialize;

use super::is_zero;
use crate::mcp::size;
use crate::orchestrator::{Collision, With};

/// A conflict with another branch, and its files. Names are never cut; those that do not fit are counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::mcp) struct ConflictReport {
    #[serde(flatten)]
    with: With,
    paths: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    more_paths: usize,
}

/// Returns the conflicts that fit into `room` bytes, and the number of those that do not.
pub(in crate::mcp) fn conflicts(collisions: &[Collision], room: usize) -> (Vec<ConflictReport>, usize) {
    let mut left = room;
    let mut named = Vec::new();
    for collision in collisions {
        let report = ConflictReport::new(collision, left);
        let Some(rest) = left.checked_sub(size::of(&report) + 1) else { continue };
        left = rest;
        named.push(report);
    }
    let more = collisions.len() - named.len();
    (named, more)
}

impl ConflictReport {
    fn new(collision: &Collision, room: usize) -> Self {
        let mut report = Self { with: collision.with.clone(), paths: Vec::new(), more_paths: collision.paths.len() };
        let left = room.saturating_sub(size::of(&report) + 1);
        (report.paths, report.more_paths) = size::fit(collision.paths.iter().cloned(), left);
        report
    }
}
