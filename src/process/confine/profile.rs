//! The sandbox profile of macOS for a set of rules. Pure, so that it is tested on every system.
//!
//! Rules are by name, and the last one that matches wins. Paths are parameters of the profile, so none is quoted in it.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{GrantKind, WriteRules};

/// The start of each profile: everything is allowed but writing and signals to processes outside.
const START: &str = "(version 1)
(allow default)
(deny file-write*)
(deny signal)
(allow signal (target same-sandbox))
(allow file-write* (literal \"/dev/null\") (literal \"/dev/zero\") (literal \"/dev/tty\") (literal \"/dev/ptmx\")
  (regex #\"^/dev/ttys[0-9]+$\") (regex #\"^/dev/fd/\"))
";

/// The arguments of `sandbox-exec` before the program. `real` resolves a path, since the kernel compares real ones.
pub fn arguments(rules: &WriteRules, real: impl Fn(&PathBuf) -> PathBuf) -> Vec<OsString> {
    let mut profile = START.to_owned();
    let mut parameters = Vec::new();
    for (at, grant) in rules.grants().iter().filter(|grant| grant.kind != GrantKind::Device).enumerate() {
        let filter = if grant.kind == GrantKind::Folder { "subpath" } else { "literal" };
        profile.push_str(&format!("(allow file-write* ({filter} (param \"P{at}\")))\n"));
        let mut parameter = OsString::from(format!("P{at}="));
        parameter.push(real(&grant.path));
        parameters.extend([OsString::from("-D"), parameter]);
    }
    for (at, path) in rules.unreadable().iter().enumerate() {
        profile.push_str(&format!("(deny file-read* (subpath (param \"U{at}\")))\n"));
        let mut parameter = OsString::from(format!("U{at}="));
        parameter.push(real(path));
        parameters.extend([OsString::from("-D"), parameter]);
    }
    ["-p".into(), profile.into()].into_iter().chain(parameters).collect()
}
