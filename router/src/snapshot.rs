//! The last good table on disk: what a router serves before its publishers are there, as far as it is proven.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use model::AppId;
use model::routes::{AppRoute, WorkloadAddresses, WorkloadId};
use serde::Serialize;

use crate::follow::{Half, read_row};
use crate::making::Source;
use crate::merge::{Addresses, Names};
use crate::pack::Packed;
use crate::proof;
use crate::rows::Rows;
use crate::split::{Piece, Splitter};
use crate::table::Table;

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// Reads the copy at `path` into a table that is empty, and stays so if there is none or it is no good, for the publishers will send the table
/// anyway. Whose an address is by now only its proof says: that is looked at when somebody wants to go there.
pub(crate) fn load(path: &Path, table: &Table, (names, addresses): (&mut Names, &mut Addresses)) {
    // Each half by itself: a router that starts has the machine's cores for nothing else.
    let loaded = thread::scope(|scope| {
        let names = scope.spawn(|| {
            let mut take = |name: &str, row: &[u8]| {
                if name == "names" {
                    read_good(row, names);
                }
            };
            read(&mut File::open(path)?, table, &mut take)?;
            names.apply();
            Ok(())
        });
        let mut take = |name: &str, row: &[u8]| {
            if name == "addresses" {
                read_good(row, addresses);
            }
        };
        let read = File::open(path).and_then(|mut file| read(&mut file, table, &mut take));
        addresses.apply();
        names.join().unwrap_or_else(|_| Err(io::Error::other("the thread that reads it broke"))).and(read)
    });
    let Err(error) = loaded else { return };
    match error.kind() {
        io::ErrorKind::NotFound => return,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            tracing::warn!(error = %error, path = %path.display(), "the last route table on disk is damaged");
        }
        _ => tracing::warn!(error = %error, path = %path.display(), "cannot read the last route table"),
    }
    // What was read of it before.
    names.forget();
    addresses.forget();
}

/// Reads what another router serves at this moment into a table that is empty, and stays so if that is no good.
pub(crate) fn receive(
    mut from: &UnixStream,
    table: &Table,
    (names, addresses): (&mut Names, &mut Addresses),
) -> io::Result<()> {
    let mut take = |name: &str, row: &[u8]| match name {
        "names" => read_good(row, names),
        "addresses" => read_good(row, addresses),
        _ => {}
    };
    let read = read(&mut from, table, &mut take);
    names.apply();
    addresses.apply();
    read.inspect_err(|_| {
        names.forget();
        addresses.forget();
    })
}

/// Reads a table. Its halves are lists of pairs, as in the feeds.
fn read(from: &mut impl Read, table: &Table, take: &mut dyn FnMut(&str, &[u8])) -> io::Result<()> {
    let (mut splitter, mut chunk, mut is_whole) = (Splitter::default(), vec![0; CHUNK], false);
    while !is_whole {
        let count = from.read(&mut chunk)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        splitter.push(&chunk[..count], &mut |piece| {
            match piece {
                // The life of the machine in which it was written.
                Piece::Member("boot", value) => {
                    let boot: Option<String> = serde_json::from_slice(value)?;
                    let is_this = boot.is_some() && boot == proof::boot_id();
                    table.making().source = Source::Disk { boot, is_this };
                }
                Piece::Member("running", _) => table.making().source = Source::Away,
                Piece::Item(name, row) => take(name, row),
                Piece::End => is_whole = true,
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// One row that is no good is no reason to let go of the others.
fn read_good(row: &[u8], half: &mut impl Half) {
    if let Err(error) = read_row(row, half) {
        tracing::error!(error = %error, "a row of the last route table is no good");
    }
}

/// Puts the table at `path` so that a reader, also one after a power cut, finds the old copy or the new one, never half of one. It goes there row
/// by row, as each is when its turn comes: what changes meanwhile is told of, and written again.
pub(crate) fn save(table: &Table, path: &Path) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = BufWriter::with_capacity(CHUNK, File::create(&draft)?);
    write(table, false, &mut file)?;
    file.into_inner()?.sync_all()?;
    fs::rename(&draft, path)
}

/// Gives the table to a router that takes over. If the host role stood for its addresses, it did so a moment ago, and the other one is told.
pub(crate) fn give(table: &Table, to: impl Write) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(CHUNK, to);
    write(table, true, &mut to)?;
    to.flush()
}

fn write(table: &Table, is_running: bool, to: &mut impl Write) -> io::Result<()> {
    let boot = match &table.making().source {
        Source::Disk { boot, .. } => Some(boot.clone()),
        Source::Told | Source::Away => None,
    };
    to.write_all(b"{\"boot\":")?;
    serde_json::to_writer(&mut *to, &boot.clone().unwrap_or_else(proof::boot_id))?;
    if is_running && boot.is_none() {
        to.write_all(b",\"running\":true")?;
    }
    to.write_all(b",\"names\":[")?;
    write_rows::<_, AppId, AppRoute>(to, &table.names)?;
    to.write_all(b"],\"addresses\":[")?;
    write_rows::<_, WorkloadId, WorkloadAddresses>(to, &table.addresses)?;
    to.write_all(b"]}")
}

fn write_rows<T, K: Packed + Serialize, V: Packed + Serialize>(to: &mut impl Write, rows: &Rows<T>) -> io::Result<()> {
    let mut is_first = true;
    for block in rows.blocks() {
        for (key, row) in block.rows() {
            let (Some(key), Some(row)) = (K::unpack(key), V::unpack(row)) else { continue };
            if !std::mem::replace(&mut is_first, false) {
                to.write_all(b",")?;
            }
            serde_json::to_writer(&mut *to, &(key, row))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;

    use model::routes::{Endpoint, Proof};

    use super::*;

    fn this_process() -> Proof {
        let netns = fs::metadata("/proc/self/ns/net").expect("a namespace").ino();
        let stat = fs::read_to_string("/proc/self/stat").expect("a process");
        Proof::new(std::process::id(), &stat, netns).expect("a proof")
    }

    fn endpoint(proof: Option<Proof>) -> Endpoint {
        let (instance, dyno) = ("i1".to_owned(), "web.1".to_owned());
        Endpoint { instance, dyno, address: ([127, 0, 0, 1], 80).into(), proof }
    }

    /// What is on disk at `path` and, of each workload that is asked for, how many instances are healthy, starting and crashed.
    fn loaded(path: &Path, workloads: &[&str]) -> (Arc<Table>, Vec<(usize, u32, u32)>) {
        let (news, _) = tokio::sync::mpsc::unbounded_channel();
        let table = Arc::new(Table::new(news.clone()));
        let mut halves = (Names::new(Arc::clone(&table)), Addresses::new(Arc::clone(&table), news));
        load(path, &table, (&mut halves.0, &mut halves.1));
        let known = |id: &&str| {
            let workload = table.workload(&mut table.making(), WorkloadId((*id).to_owned()));
            let instances = workload.instances.load();
            (instances.healthy.len(), instances.starting, instances.crashed)
        };
        let known = workloads.iter().map(known).collect();
        (table, known)
    }

    #[test]
    fn a_table_comes_back_from_disk_as_far_as_it_is_proven_and_a_damaged_one_is_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("table.json");
        let all = ["proven", "unknown", "other"];
        assert_eq!(loaded(&path, &all).1, [(0, 0, 0); 3]);
        let proven = this_process();
        let row = |healthy: &[Endpoint], starting, crashed| WorkloadAddresses {
            healthy: healthy.into(),
            starting,
            crashed,
            ..WorkloadAddresses::default()
        };
        let other = [Proof { started: proven.started + 1, ..proven }, Proof { netns: proven.netns + 1, ..proven }];
        let rows = [
            ("proven", row(&[endpoint(Some(proven))], 1, 0)),
            ("unknown", row(&[endpoint(None)], 0, 2)),
            ("other", row(&other.map(|proof| endpoint(Some(proof))), 0, 0)),
        ];
        let (news, _) = tokio::sync::mpsc::unbounded_channel();
        let table = Arc::new(Table::new(news.clone()));
        let mut halves = (Names::new(Arc::clone(&table)), Addresses::new(Arc::clone(&table), news));
        halves.1.begin();
        for (id, row) in rows {
            halves.1.set(WorkloadId(id.to_owned()), row);
        }
        halves.1.end(1, true);
        halves.0.begin();
        let id: AppId = "00000000-0000-4000-8000-000000000001".parse().expect("an id");
        let route = r#"{"name":"shop","hosts":["shop.example","*.shop.example"],"mode":"blank"}"#;
        halves.0.set(id, serde_json::from_str(route).expect("a route"));
        halves.0.end(1, true);
        save(&table, &path).expect("saved");
        let text = fs::read_to_string(&path).expect("text");
        let (again, known) = loaded(&path, &all);
        assert_eq!(known, [(1, 1, 0), (0, 3, 0), (0, 2, 0)]);
        assert_eq!(again.find("www.shop.example", "/").ok().map(|(app, _)| app.id), Some(id));
        // Nobody stood for it since.
        save(&again, &path).expect("saved");
        assert_eq!(loaded(&path, &all).1, [(1, 1, 0), (0, 3, 0), (0, 2, 0)]);

        let before = text.replacen("\"boot\":\"", "\"boot\":\"before-", 1);
        assert_ne!(before, text);
        fs::write(&path, before).expect("written");
        assert_eq!(loaded(&path, &all).1[0], (0, 2, 0), "after a reboot nothing is proven");
        save(&loaded(&path, &[]).0, &path).expect("saved");
        assert_eq!(loaded(&path, &all).1[0], (0, 2, 0), "nor after it was written again");
        for length in 0..text.len() {
            fs::write(&path, &text[..length]).expect("written");
            let (table, known) = loaded(&path, &all);
            assert_eq!(known, [(0, 0, 0); 3], "half of a table is none");
            assert!(table.find("shop.example", "/").is_err());
        }
    }
}
