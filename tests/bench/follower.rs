//! The floor of following output: a program that copies what is appended to a file into another file. It parses nothing
//! and has no end.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::inotify;

use crate::agent::appended;

pub fn run(mut arguments: impl Iterator<Item = OsString>) {
    let mut path = || PathBuf::from(arguments.next().expect("a path"));
    let (path, mut log) = (path(), appended(&path()));
    let file = File::open(&path).expect("a file to follow");
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC).expect("one more");
    inotify::add_watch(&inotify, &path, inotify::WatchFlags::MODIFY).expect("one more");
    let (mut events, mut chunk, mut at) = ([0_u8; 256], vec![0; 64 * 1024], 0);
    loop {
        rustix::io::read(&inotify, &mut events).expect("an inotify event");
        let count = file.read_at(&mut chunk, at).expect("a readable file");
        log.write_all(&chunk[..count]).expect("it can be written");
        at += count as u64;
    }
}
