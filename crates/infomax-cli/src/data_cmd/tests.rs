//! Fetching from a server of the test: ranges, cut connections, wrong files, archives that try to escape.

use super::super::catalog::{Pack, Remote, Set};
use super::super::download::{Patience, part_path};
use super::{MARK, Plan, fetch};
use md5::{Digest as _, Md5};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// How the server behaves.
#[derive(Clone, Copy, Debug, Default)]
struct Manners {
    /// It answers 200 with everything, whatever range is asked for.
    no_ranges: bool,
    /// Every connection ends after so many bytes of the body.
    cut_after: Option<usize>,
    /// So many connections are answered 503 first.
    busy: usize,
    /// It sends the beginning instead of the range that was asked for.
    wrong_range: bool,
}

/// A server of files on a port of its own.
struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
    /// The `Range` headers, in order.
    ranges: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn start(files: Vec<(&'static str, Vec<u8>)>, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/sets/", listener.local_addr().unwrap());
        let (requests, ranges, stop) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let (count, seen, stopped) = (requests.clone(), ranges.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::SeqCst);
                // A client that hangs up is its own affair.
                let _ = answer(stream, &files, manners, number, &seen);
            }
        });
        Self { url, requests, ranges, stop }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let address = self.url.trim_start_matches("http://").trim_end_matches("/sets/").to_owned();
        drop(TcpStream::connect(address));
    }
}

fn answer(
    mut stream: TcpStream,
    files: &[(&str, Vec<u8>)],
    manners: Manners,
    number: usize,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap()?;
    let mut range = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            seen.lock().unwrap().push(value.trim().to_owned());
            range = value
                .trim()
                .strip_prefix("bytes=")
                .and_then(|r| r.trim_end_matches('-').parse::<usize>().ok());
        }
    }
    if number < manners.busy {
        return stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let path = request.split(' ').nth(1).unwrap_or("");
    let Some((_, bytes)) = files.iter().find(|(name, _)| path == format!("/sets/{name}")) else {
        return stream.write_all(b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let total = bytes.len();
    let mut start = if manners.no_ranges { None } else { range };
    if manners.wrong_range && start.is_some_and(|s| s > 0) {
        start = Some(0);
    }
    let (head, from) = match start {
        Some(start) if start >= total => {
            let head = format!(
                "HTTP/1.1 416 No\r\nContent-Range: bytes */{total}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            return stream.write_all(head.as_bytes());
        }
        Some(start) => {
            (format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{total}", total - 1), start)
        }
        None => ("200 OK".to_owned(), 0),
    };
    let body = &bytes[from..];
    write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body[..manners.cut_after.unwrap_or(usize::MAX).min(body.len())])
}

fn hash(bytes: &[u8]) -> &'static str {
    let hex: String = Md5::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    Box::leak(hex.into_boxed_str())
}

fn set(name: &'static str, files: &[(&'static str, Vec<u8>)], pack: Pack) -> Set {
    let remotes: Vec<Remote> = files
        .iter()
        .map(|(name, bytes)| Remote { name, size: bytes.len() as u64, md5: hash(bytes) })
        .collect();
    Set {
        name,
        about: "a set of the test",
        base_url: "",
        files: Box::leak(remotes.into_boxed_slice()),
        pack,
        unpacked: 100_000,
        source: "here",
        license: "none",
    }
}

fn run(set: &Set, server: &Server, to: &Path) -> anyhow::Result<Vec<String>> {
    let patience = Patience { tries: 3, pause: Duration::from_millis(1) };
    fetch(set, &Plan { base_url: &server.url, to, keep_archive: false, quiet: true, patience })
}

#[track_caller]
fn error(set: &Set, server: &Server, to: &Path) -> String {
    format!("{:#}", run(set, server, to).unwrap_err())
}

/// MNIST in small: two images of 30x30, and their labels.
fn mnist() -> Vec<(&'static str, Vec<u8>)> {
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 30, 0, 0, 0, 30];
    images.extend((0..1800u32).map(|i| (i * 7 % 251) as u8));
    vec![("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", vec![0, 0, 8, 1, 0, 0, 0, 2, 4, 1])]
}

fn cifar_record() -> Vec<u8> {
    [&[5u8][..], &[77; 3072]].concat()
}

fn tar_gz(members: &[(&str, &[u8])]) -> Vec<u8> {
    let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        // Written into the field itself: `set_path` refuses what an attacker would write.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn files_come_whole_and_only_once() {
    let (files, dir) = (mnist(), TempDir::new().unwrap());
    let set = set("mnist", &files, Pack::None);
    let server = Server::start(files.clone(), Manners::default());
    let lines = run(&set, &server, dir.path()).unwrap().join("\n");
    assert!(
        lines.contains("train:") && lines.contains("2 images of 30x30") && lines.contains("license: none"),
        "{lines}"
    );
    for (name, bytes) in &files {
        assert_eq!(&std::fs::read(dir.path().join(name)).unwrap(), bytes);
        assert!(!part_path(&dir.path().join(name)).exists());
    }
    assert!(dir.path().join(MARK).is_file());
    let before = server.requests.load(Ordering::SeqCst);
    assert!(run(&set, &server, dir.path()).unwrap()[0].contains("is there already"));
    assert_eq!(server.requests.load(Ordering::SeqCst), before, "nothing is asked for again");
}

#[test]
fn cut_connections_are_taken_up_where_they_ended() {
    let (files, dir) = (mnist(), TempDir::new().unwrap());
    let set = set("mnist", &files, Pack::None);
    let server =
        Server::start(files.clone(), Manners { cut_after: Some(500), busy: 2, ..Manners::default() });
    run(&set, &server, dir.path()).unwrap();
    assert_eq!(std::fs::read(dir.path().join(files[0].0)).unwrap(), files[0].1);
    let ranges = server.ranges.lock().unwrap().clone();
    assert_eq!(ranges[2..6], ["bytes=0-", "bytes=500-", "bytes=1000-", "bytes=1500-"], "{ranges:?}");
}

#[test]
fn a_run_that_was_killed_goes_on() {
    let (files, dir) = (mnist(), TempDir::new().unwrap());
    let set = set("mnist", &files, Pack::None);
    let path = dir.path().join(files[0].0);
    std::fs::write(part_path(&path), &files[0].1[..1000]).unwrap();
    let server = Server::start(files.clone(), Manners::default());
    run(&set, &server, dir.path()).unwrap();
    assert_eq!(server.ranges.lock().unwrap()[0], "bytes=1000-");
    assert_eq!(std::fs::read(&path).unwrap(), files[0].1);
    // All bytes were there, only the name was missing; and more bytes than there can be.
    for left in [files[0].1.clone(), vec![1; 5000]] {
        let dir = TempDir::new().unwrap();
        std::fs::write(part_path(&dir.path().join(files[0].0)), left).unwrap();
        run(&set, &server, dir.path()).unwrap();
        assert_eq!(std::fs::read(dir.path().join(files[0].0)).unwrap(), files[0].1);
    }
}

#[test]
fn servers_without_ranges_and_with_wrong_ones() {
    for manners in [
        Manners { no_ranges: true, ..Manners::default() },
        Manners { wrong_range: true, ..Manners::default() },
    ] {
        let (files, dir) = (mnist(), TempDir::new().unwrap());
        let path = dir.path().join(files[0].0);
        std::fs::write(part_path(&path), [9; 1000]).unwrap();
        let server = Server::start(files.clone(), manners);
        run(&set("mnist", &files, Pack::None), &server, dir.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), files[0].1, "{manners:?}");
    }
}

#[test]
fn a_server_that_never_gets_further_is_given_up() {
    let (files, dir) = (mnist(), TempDir::new().unwrap());
    let set = set("mnist", &files, Pack::None);
    let server = Server::start(files.clone(), Manners { cut_after: Some(0), ..Manners::default() });
    let message = error(&set, &server, dir.path());
    assert!(
        message.contains("3 tries without a new byte") && message.contains("0 of 1816 bytes"),
        "{message}"
    );
    // Without ranges every connection starts over, which is no progress either.
    let server =
        Server::start(files, Manners { cut_after: Some(700), no_ranges: true, ..Manners::default() });
    let message = error(&set, &server, dir.path());
    assert!(message.contains("tries without a new byte"), "{message}");
    assert!(!dir.path().join(MARK).exists());
}

#[test]
fn wrong_files_are_refused() {
    let (files, dir) = (mnist(), TempDir::new().unwrap());
    let wanted = set("mnist", &files, Pack::None);
    let mut damaged = files.clone();
    damaged[0].1[900] ^= 1;
    let server = Server::start(damaged, Manners::default());
    let message = error(&wanted, &server, dir.path());
    assert!(message.contains("MD5") && message.contains(hash(&files[0].1)), "{message}");
    // Nothing is left that a next run would build on.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

    let mut longer = files.clone();
    longer[0].1.push(0);
    for no_ranges in [false, true] {
        let server = Server::start(longer.clone(), Manners { no_ranges, ..Manners::default() });
        let message = error(&wanted, &server, dir.path());
        assert!(message.contains("has 1817 bytes, not 1816"), "{message}");
    }
    let server = Server::start(Vec::new(), Manners::default());
    let message = error(&wanted, &server, dir.path());
    assert!(message.contains("train-images-idx3-ubyte") && message.contains("404"), "{message}");
    assert_eq!(server.requests.load(Ordering::SeqCst), 1, "a missing file is not asked for again");

    std::fs::write(dir.path().join(files[0].0), b"mine").unwrap();
    let message = error(&wanted, &server, dir.path());
    assert!(message.contains("is not the file that is wanted"), "{message}");
}

#[test]
fn archives_are_unpacked_all_at_once() {
    let record = cifar_record();
    let inner = "cifar-10-batches-bin/data_batch_1.bin";
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(inner, zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&record).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    for (name, bytes, pack) in
        [("c.tar.gz", tar_gz(&[(inner, &record)]), Pack::TarGz), ("c.zip", zip, Pack::Zip)]
    {
        let (files, dir) = (vec![(name, bytes)], TempDir::new().unwrap());
        let server = Server::start(files.clone(), Manners::default());
        // Left over from a run that was killed while it unpacked.
        std::fs::create_dir_all(dir.path().join(".unpacking/half")).unwrap();
        let lines = run(&set("cifar10", &files, pack), &server, dir.path()).unwrap().join("\n");
        assert!(lines.contains("1 images of 32x32, 10 classes"), "{lines}");
        assert_eq!(std::fs::read(dir.path().join(inner)).unwrap(), record);
        let mut left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["cifar-10-batches-bin", MARK], "the archive is gone");
    }
}

#[test]
fn archives_cannot_write_elsewhere() {
    let outside = TempDir::new().unwrap();
    let absolute = outside.path().join("evil").display().to_string();
    let big = vec![0; 200_000];
    let mut link = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    link.append_link(&mut header, "link", "/tmp").unwrap();
    let link = link.into_inner().unwrap().finish().unwrap();
    let whole = tar_gz(&[("a.bin", &cifar_record())]);
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("..\\evil", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"x").unwrap();
    let zip = zip.finish().unwrap().into_inner();
    for (what, bytes, words) in [
        ("above.tar.gz", tar_gz(&[("../evil", b"x")]), "outside of the target"),
        ("absolute.tar.gz", tar_gz(&[(&absolute, b"x")]), "outside of the target"),
        ("link.tar.gz", link, "neither a file nor a folder"),
        ("twice.tar.gz", tar_gz(&[("a", b"x"), ("a", b"y")]), "cannot write"),
        ("bomb.tar.gz", tar_gz(&[("a", &big)]), "more than 100000 bytes"),
        ("cut.tar.gz", whole[..whole.len() - 6].to_vec(), "damaged archive"),
        ("above.zip", zip, "outside of the target"),
        ("no.zip", b"not a zip file".to_vec(), "damaged archive"),
    ] {
        let (files, dir) = (vec![(what, bytes)], TempDir::new().unwrap());
        let target = dir.path().join("to");
        let server = Server::start(files.clone(), Manners::default());
        let pack = if what.ends_with("zip") { Pack::Zip } else { Pack::TarGz };
        let message = error(&set("set", &files, pack), &server, &target);
        assert!(message.contains(words), "{what}: {message}");
        assert!(!dir.path().join("evil").exists() && !outside.path().join("evil").exists(), "{what}");
        // The checked archive stays; nothing of its contents does.
        let left: Vec<_> = std::fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [what], "{what}");
    }
}
