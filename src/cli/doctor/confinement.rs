//! Checks whether the kernel of this machine confines workers, as the settings ask for.

use super::check::Finding;
use super::machine::edit;
use crate::config::{Confine, Settings};
use crate::mission::confined::Reads;
use crate::process::confine::{self, Restriction, Support};

const NAME: &str = "confinement";

pub fn confinement(settings: &Settings) -> Vec<Finding> {
    let is_used = settings.confine != Confine::Off;
    let missing = settings.missing_confined().filter(|_| is_used).map(|(setting, path)| {
        let message = format!("{setting} names {}, which does not exist: no worker starts", path.display());
        let check = Finding::bad(NAME, message).stops_all();
        settings.file.as_deref().map_or(check.clone(), |file| check.fix(edit(file)))
    });
    let reads = if settings.confine_unreadable.is_empty() { Reads::All } else { Reads::Limited };
    [finding(settings.confine, reads, confine::support())].into_iter().chain(missing).collect()
}

fn finding(confine: Confine, reads: Reads, support: Support) -> Finding {
    match (confine, support) {
        (Confine::Off, _) => {
            Finding::note(NAME, "off: workers can write wherever you can, unless the settings have confine = \"auto\"")
        }
        (_, Support::Yes(Restriction { by, abi, signals, .. })) => {
            let version = abi.map(|abi| format!(" {abi}")).unwrap_or_default();
            let signals = if signals { "" } else { ", signals" };
            let open = format!("open: {}, the network, sockets with a path{signals}", reads.open());
            Finding::ok(
                NAME,
                format!(
                    "workers write only to their worktrees and allowed folders, by {}{version}; {open}",
                    by.as_str()
                ),
            )
        }
        (Confine::Require, Support::No { why }) => {
            Finding::bad(NAME, format!("no worker starts, since the settings require it: {why}")).stops_all()
        }
        (Confine::Auto, Support::No { why }) => {
            Finding::warn(NAME, format!("workers can write wherever you can: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::check::Severity;
    use crate::mission::confined::Enforcer;

    #[test]
    fn finding_follows_settings_and_kernel() {
        let restriction = Restriction { by: Enforcer::Landlock, abi: Some(4), signals: false, reads: Reads::All };
        let yes = || Support::Yes(restriction);
        let no = || Support::No { why: "no Landlock".to_owned() };
        let cases = [
            (
                Confine::Auto,
                yes(),
                Severity::Ok,
                "by landlock 4; open: reading, the network, sockets with a path, signals",
            ),
            (Confine::Auto, no(), Severity::Warn, "wherever you can: no Landlock"),
            (Confine::Require, no(), Severity::Bad, "no worker starts"),
            (Confine::Off, yes(), Severity::Note, "off: workers can write"),
        ];
        for (confine, support, severity, words) in cases {
            let found = finding(confine, Reads::All, support);
            assert_eq!(found.severity, severity, "{}", found.message);
            assert!(found.message.contains(words), "{}", found.message);
            assert_eq!(found.stops_all, severity == Severity::Bad);
        }
    }
}
