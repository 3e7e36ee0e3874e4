//! The signing of commits, as the user has configured it.

use super::command::{CommandError, Git};
use super::trust::Checkout;

const SETTINGS: &str = r"^(commit\.gpgsign|tag\.gpgsign|gpg\.format|gpg\.program|gpg\.openpgp\.program)$";

/// Returns the program with which git signs commits or tags here by a key of GnuPG. `None` if it does not sign so.
pub fn gnupg(checkout: &Checkout) -> Result<Option<String>, CommandError> {
    let found = Git::read(checkout).args(["config", "--null", "--get-regexp", SETTINGS]).output()?;
    let found = String::from_utf8_lossy(&found.stdout);
    let mut program = "gpg";
    let (mut commits, mut tags, mut is_openpgp) = (false, false, true);
    for setting in found.split('\0') {
        // A name alone is true.
        let (name, value) = setting.split_once('\n').unwrap_or((setting, "true"));
        let is_on = || ["true", "yes", "on", "1"].contains(&value.to_ascii_lowercase().as_str());
        match name {
            "commit.gpgsign" => commits = is_on(),
            "tag.gpgsign" => tags = is_on(),
            "gpg.format" => is_openpgp = value == "openpgp",
            "gpg.program" | "gpg.openpgp.program" => program = value,
            _ => {}
        }
    }
    Ok(((commits || tags) && is_openpgp).then(|| program.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::Fixture;

    #[test]
    fn program_is_named_only_if_git_signs_with_it() {
        let fixture = Fixture::new();
        let program = || gnupg(&fixture.repo.checkout()).unwrap();
        assert_eq!(program(), None);
        fixture.git(&["config", "commit.gpgsign", "yes"]);
        assert_eq!(program().as_deref(), Some("gpg"));
        fixture.git(&["config", "gpg.program", "/opt/gpg2"]);
        assert_eq!(program().as_deref(), Some("/opt/gpg2"));
        fixture.git(&["config", "gpg.format", "ssh"]);
        assert_eq!(program(), None);
        fixture.git(&["config", "gpg.format", "openpgp"]);
        fixture.git(&["config", "commit.gpgsign", "false"]);
        assert_eq!(program(), None);
    }
}
