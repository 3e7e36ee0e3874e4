use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;

/// Runs a shell script that the rules confine, and returns whether it succeeded. `None` where the kernel cannot.
fn confined(rules: &WriteRules, script: &str) -> Option<bool> {
    if let Support::No { why } = support() {
        eprintln!("SKIPPED: {why}");
        return None;
    }
    let (program, args) = wrapped(rules, Path::new("/bin/sh"), &["-c".into(), script.into()]).unwrap();
    let mut command = Command::new(program);
    let run = || command.args(args).stderr(std::process::Stdio::null()).status().unwrap().success();
    Some(restricted(rules, run).unwrap().0)
}

fn rules(folder: &Path, links: Links) -> WriteRules {
    let mut rules = WriteRules::devices();
    rules.add(folder, GrantKind::Folder, links);
    rules
}

#[tokio::test]
async fn only_granted_paths_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for name in ["granted", "other"] {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("file"), "old").unwrap();
    }
    let rules = rules(&root.join("granted"), Links::Refused);
    let run = |script: &str| confined(&rules, &script.replace("ROOT", &root.display().to_string()));
    let cases = [
        ("echo new > ROOT/granted/file && mkdir ROOT/granted/d && mv ROOT/granted/file ROOT/granted/d", true),
        ("echo x > /dev/null", true),
        ("cat ROOT/other/file > /dev/null", true),
        ("echo new > ROOT/other/file", false),
        ("rm ROOT/other/file", false),
        ("mv ROOT/other/file ROOT/granted/", false),
        ("ln ROOT/other/file ROOT/granted/link && echo new > ROOT/granted/link", false),
        ("ln -s ROOT/other/file ROOT/granted/soft && echo new > ROOT/granted/soft", false),
        ("mkdir ROOT/new", false),
    ];
    for (script, succeeds) in cases {
        assert!(run(script).is_none_or(|done| done == succeeds), "{script}");
    }
    assert_eq!(fs::read_to_string(root.join("other/file")).unwrap(), "old");
    fs::write(root.join("other/by-this-process"), "not restricted").unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn folder_is_tried_without_a_trace() {
    for place in [std::env::temp_dir(), "/dev/shm".into()].iter().filter(|place| place.is_dir()) {
        let folder = tempfile::tempdir_in(place).unwrap();
        let root = folder.path().canonicalize().unwrap();
        let is_writable = || system::is_writable(&root);
        assert!(is_writable());
        if let Support::Yes(_) = support() {
            assert!(!restricted(&WriteRules::default(), is_writable).unwrap().0);
            assert!(restricted(&rules(&root, Links::Refused), is_writable).unwrap().0);
        }
        assert_eq!(without_effect(&rules(&root, Links::Refused)), None);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn grant_follows_no_link_of_a_worker() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("secret/inner")).unwrap();
    std::os::unix::fs::symlink(root.join("secret"), root.join("link")).unwrap();
    for path in ["link", "link/inner"] {
        let refused = restricted(&rules(&root.join(path), Links::Refused), || ());
        assert!(matches!(refused, Err(ConfineError::Link { .. } | ConfineError::Refused { .. })), "{refused:?}");
    }
    let followed =
        confined(&rules(&root.join("link"), Links::Followed), &format!("echo > {}/secret/x", root.display()));
    assert_ne!(followed, Some(false));
}

#[tokio::test]
async fn named_paths_cannot_be_read() {
    // Two file systems, each with a folder above the secret one.
    for place in [std::env::temp_dir(), "/dev/shm".into()].iter().filter(|place| place.is_dir()) {
        let folder = tempfile::tempdir_in(place).unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["secret/inner", "granted", "other"] {
            fs::create_dir_all(root.join(name)).unwrap();
            fs::write(root.join(name).join("file"), "x").unwrap();
        }
        std::os::unix::fs::symlink(root.join("secret"), root.join("link")).unwrap();
        let mut rules = rules(&root.join("granted"), Links::Refused);
        rules.forbid_reading(&[root.join("secret"), root.join("secret/inner")]);
        assert_eq!(rules.unreadable(), [root.join("secret")]);
        let run = |script: &str| confined(&rules, &script.replace("ROOT", &root.display().to_string()));
        let cases = [
            ("cat ROOT/other/file ROOT/granted/file && ls ROOT/other > /dev/null", true),
            ("echo new > ROOT/granted/new && cat ROOT/granted/new && ls ROOT/granted", true),
            ("cat < /dev/null && ls /usr > /dev/null", true),
            ("cat ROOT/secret/inner/file", false),
            ("cat ROOT/link/inner/file", false),
            ("cat /proc/self/root/ROOT/secret/inner/file", false),
            ("ls ROOT/secret", false),
            ("ln ROOT/secret/inner/file ROOT/granted/hard && cat ROOT/granted/hard", false),
            ("mv ROOT/secret/inner ROOT/granted/moved", false),
        ];
        for (script, succeeds) in cases {
            assert!(run(script).is_none_or(|done| done == succeeds), "{script} in {}", root.display());
        }
    }
}

#[test]
fn grant_below_another_is_left_out() {
    let mut rules = WriteRules::default();
    for path in ["/a/b/c", "/a/bc", "/a/b", "/a/b/d"] {
        rules.add(Path::new(path), GrantKind::Folder, Links::Followed);
    }
    let paths: Vec<&Path> = rules.grants().iter().map(|grant| grant.path.as_path()).collect();
    assert_eq!(paths, [Path::new("/a/bc"), Path::new("/a/b")]);
}

#[test]
fn profile_names_paths_as_parameters() {
    let mut rules = WriteRules::default();
    rules.add(Path::new("/tmp/a \"b"), GrantKind::Folder, Links::Followed);
    rules.add(Path::new("/c/file"), GrantKind::File, Links::Followed);
    let args = profile::arguments(&rules, |path| Path::new("/private").join(path.strip_prefix("/").unwrap()));
    let args: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
    assert_eq!(args[0], "-p");
    assert!(
        args[1]
            .ends_with("(allow file-write* (subpath (param \"P0\")))\n(allow file-write* (literal (param \"P1\")))\n")
    );
    assert_eq!(args[2..], ["-D", "P0=/private/tmp/a \"b", "-D", "P1=/private/c/file"]);
    rules.forbid_reading(&["/c/secret".into()]);
    let args = profile::arguments(&rules, PathBuf::clone);
    assert!(args[1].to_str().unwrap().ends_with("(deny file-read* (subpath (param \"U0\")))\n"));
    assert_eq!(args.last().unwrap(), "U0=/c/secret");
}
