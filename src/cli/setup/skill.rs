//! The skill, which is part of this program, in the place where a client looks for skills.

use std::path::Path;

use super::change::Change;
use super::entry::NAME;
use super::receipt::{Made, Receipt};
use super::{SetupError, file};

const SKILL: &str = include_str!("../../../skills/orchestrator-boss/SKILL.md");

/// One that somebody has changed is theirs, unless it is to be overwritten (`force`).
pub fn install(skills: &Path, receipt: &Receipt, force: bool) -> Result<Change, SetupError> {
    let path = skills.join(NAME).join("SKILL.md");
    let before = file::read(&path)?;
    let mut made = receipt.of(&path);
    if before.as_deref() != Some(SKILL) {
        if before.is_some() && before != made.text && !force {
            return Err(SetupError::ChangedSkill { path, then: "overwrite it" });
        }
        made.file |= before.is_none();
        made.text = Some(SKILL.to_owned());
    }
    Ok(Change { path, before, after: Some(SKILL.to_owned()), made, whole: true })
}

pub fn uninstall(skills: &Path, receipt: &Receipt, force: bool) -> Result<Change, SetupError> {
    let path = skills.join(NAME).join("SKILL.md");
    let before = file::read(&path)?;
    let mut made = receipt.of(&path);
    let ours = before.as_deref() == Some(SKILL) || before == made.text;
    if before.is_some() && !ours && !force {
        return Err(SetupError::ChangedSkill { path, then: "remove it" });
    }
    if made.folders.is_empty() {
        // It has a folder of its own wherever it came from.
        made.folders = path.parent().map(Path::to_owned).into_iter().collect();
    }
    Ok(Change { path, before, after: None, made: Made { folders: made.folders, ..Made::default() }, whole: true })
}
