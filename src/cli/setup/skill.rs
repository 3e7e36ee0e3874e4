//! Installs the bundled skill in a client's folder of skills.

use std::path::Path;

use super::change::SettingsChange;
use super::entry::NAME;
use super::manifest::{CreatedParts, Manifest};
use super::{SetupError, file};

const SKILL: &str = include_str!("../../../skills/orchestrator-boss/SKILL.md");

/// Installs the skill. Overwrites a changed one only with `force`.
pub fn install(skills: &Path, manifest: &Manifest, force: bool) -> Result<SettingsChange, SetupError> {
    let path = skills.join(NAME).join("SKILL.md");
    let before = file::read(&path)?;
    let mut created = manifest.of(&path);
    if before.as_deref() != Some(SKILL) {
        if before.is_some() && before != created.text && !force {
            return Err(SetupError::ChangedSkill { path, then: "overwrite it" });
        }
        created.file |= before.is_none();
        created.text = Some(SKILL.to_owned());
    }
    Ok(SettingsChange { path, before, after: Some(SKILL.to_owned()), created, whole: true })
}

pub fn uninstall(skills: &Path, manifest: &Manifest, force: bool) -> Result<SettingsChange, SetupError> {
    let path = skills.join(NAME).join("SKILL.md");
    let before = file::read(&path)?;
    let mut created = manifest.of(&path);
    let ours = before.as_deref() == Some(SKILL) || before == created.text;
    if before.is_some() && !ours && !force {
        return Err(SetupError::ChangedSkill { path, then: "remove it" });
    }
    if created.folders.is_empty() {
        // The skill has its own folder, even if setup did not install it.
        created.folders = path.parent().map(Path::to_owned).into_iter().collect();
    }
    Ok(SettingsChange {
        path,
        before,
        after: None,
        created: CreatedParts { folders: created.folders, ..CreatedParts::default() },
        whole: true,
    })
}
