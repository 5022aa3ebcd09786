use std::fs;
use std::os::unix::fs::symlink;

use tokio::sync::mpsc::Receiver;

use super::super::refresh::MISSING;
use super::super::tests::{Folder, service, summary};
use super::*;

/// Nothing here takes this long unless it never happens.
const NEVER: Duration = Duration::from_mins(1);

/// Watches a path; what the first read gave is not among the changes.
fn follow(path: &Path) -> Receiver<Vec<Change>> {
    let mut manifests = Manifests::new(vec![path.to_owned()], "node-a");
    manifests.read().unwrap();
    let (sender, changes) = mpsc::channel(100);
    tokio::spawn(manifests.watch(sender));
    changes
}

/// What the next message says.
async fn next(changes: &mut Receiver<Vec<Change>>) -> String {
    let changes = tokio::time::timeout(NEVER, changes.recv()).await.expect("a change in time");
    summary(&changes.expect("the watch must not end")).join(", ")
}

/// The next change must be this one: everything before it would have been seen before it.
async fn fence(changes: &mut Receiver<Vec<Change>>, folder: &Folder) {
    folder.write("fence.yaml", &service("fence", "10.9.9.9"));
    assert_eq!(next(changes).await, "service default/fence [10.9.9.9]");
    fs::remove_file(folder.0.join("fence.yaml")).unwrap();
    assert_eq!(next(changes).await, "gone default/fence");
}

#[tokio::test]
async fn written_replaced_and_removed_files() {
    let folder = Folder::new("follow");
    folder.write("a.yaml", &service("a", "10.0.0.1"));
    let mut changes = follow(&folder.0);
    folder.write("b.yaml", &service("b", "10.0.0.2"));
    assert_eq!(next(&mut changes).await, "service default/b [10.0.0.2]");

    // An unchanged object is no change.
    folder
        .write("a.yaml", &format!("{}---\n{}", service("a", "10.0.0.1"), service("c", "10.0.0.3")));
    assert_eq!(next(&mut changes).await, "service default/c [10.0.0.3]");

    folder.write(".new", &service("a", "10.0.0.9"));
    fs::rename(folder.0.join(".new"), folder.0.join("a.yaml")).unwrap();
    assert_eq!(next(&mut changes).await, "service default/a [10.0.0.9], gone default/c");

    fs::remove_file(folder.0.join("b.yaml")).unwrap();
    assert_eq!(next(&mut changes).await, "gone default/b");
    fence(&mut changes, &folder).await;
}

#[tokio::test]
async fn a_half_written_file_deletes_nothing() {
    let folder = Folder::new("half");
    let whole = format!("{}---\n{}", service("a", "10.0.0.1"), service("b", "10.0.0.2"));
    folder.write("a.yaml", &whole);
    let mut changes = follow(&folder.0);
    for half in [
        "",
        "\u{0}",
        "apiVersion: v1\nkind: [",
        &format!("{}---\nkind: {{", service("a", "10.0.0.1")),
    ] {
        folder.write("a.yaml", half);
        fence(&mut changes, &folder).await;
    }
    // What can be read of it counts, and when it is whole again so does what is missing in it.
    folder.write("a.yaml", &format!("{}---\nkind: {{", service("a", "10.0.0.7")));
    assert_eq!(next(&mut changes).await, "service default/a [10.0.0.7]");
    folder.write("a.yaml", &service("a", "10.0.0.7"));
    assert_eq!(next(&mut changes).await, "gone default/b");
}

#[test]
fn a_file_that_is_moved_away_and_replaced_is_never_gone() {
    let folder = Folder::new("editor");
    let file = folder.write("a.yaml", &service("a", "10.0.0.1"));
    let mut manifests = Manifests::new(vec![folder.0.clone()], "");
    manifests.read().unwrap();
    let start = Instant::now();
    let mut refresh = |at| {
        let loaded = manifests.refresh(&Touched::All, at);
        assert_eq!(loaded.warnings, []);
        (summary(&loaded.changes), manifests.next_look())
    };
    fs::rename(&file, folder.0.join("a.yaml~")).unwrap();
    assert_eq!(refresh(start), (vec![], Some(start + MISSING)));
    folder.write("a.yaml", &service("a", "10.0.0.2"));
    let replaced = vec!["service default/a [10.0.0.2]".to_owned()];
    assert_eq!(refresh(start + MISSING), (replaced, None));

    fs::remove_file(&file).unwrap();
    assert_eq!(refresh(start), (vec![], Some(start + MISSING)));
    assert_eq!(refresh(start + MISSING), (vec!["gone default/a".to_owned()], None));
}

/// A ConfigMap is mounted as links to a folder that is a link, which is replaced as a whole.
#[tokio::test]
async fn a_config_map_that_is_swapped() {
    let folder = Folder::new("configmap");
    let version = |name: &str, text: &str| {
        fs::create_dir(folder.0.join(name)).unwrap();
        fs::write(folder.0.join(name).join("a.yaml"), text).unwrap();
        symlink(name, folder.0.join("..data_tmp")).unwrap();
        fs::rename(folder.0.join("..data_tmp"), folder.0.join("..data")).unwrap();
    };
    version("..1", &service("a", "10.0.0.1"));
    symlink("..data/a.yaml", folder.0.join("a.yaml")).unwrap();
    // As a folder, and as one file in it.
    let mut changes = [follow(&folder.0), follow(&folder.0.join("a.yaml"))];
    version("..2", &service("a", "10.0.0.2"));
    for changes in &mut changes {
        assert_eq!(next(changes).await, "service default/a [10.0.0.2]");
    }
}

#[tokio::test]
async fn a_folder_that_vanishes_keeps_its_objects_and_may_come_back() {
    let outer = Folder::new("vanish");
    let inner = outer.0.join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    let mut changes = follow(&inner);
    fs::rename(&inner, outer.0.join("away")).unwrap();
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    fs::write(inner.join("b.yaml"), service("b", "10.0.0.2")).unwrap();
    assert_eq!(next(&mut changes).await, "service default/b [10.0.0.2]");
    fs::write(inner.join("b.yaml"), service("b", "10.0.0.3")).unwrap();
    assert_eq!(next(&mut changes).await, "service default/b [10.0.0.3]");
}

#[tokio::test]
async fn ends_when_nobody_listens() {
    let folder = Folder::new("listen");
    let mut manifests = Manifests::new(vec![folder.0.clone()], "");
    manifests.read().unwrap();
    let (sender, changes) = mpsc::channel::<Vec<Change>>(1);
    let watching = tokio::spawn(manifests.watch(sender));
    drop(changes);
    tokio::time::timeout(NEVER, watching).await.unwrap().unwrap().unwrap();
}

/// A manifest that gets another name, and one that takes the place of another, are one message each;
/// neither is ever gone or called a duplicate of itself.
#[tokio::test]
async fn a_rename_is_one_refresh() {
    let folder = Folder::new("rename");
    let both = |ip: &str| format!("{}---\n{}", service("a", ip), service("b", ip));
    folder.write("a.yaml", &both("10.0.0.1"));
    let mut changes = follow(&folder.0);
    for n in 2..50 {
        folder.write(".new", &both(&format!("10.0.0.{n}")));
        fs::rename(folder.0.join(".new"), folder.0.join("a.yaml")).unwrap();
        let expected = format!("service default/a [10.0.0.{n}], service default/b [10.0.0.{n}]");
        assert_eq!(next(&mut changes).await, expected);
    }
    fs::rename(folder.0.join("a.yaml"), folder.0.join("z.yaml")).unwrap();
    fence(&mut changes, &folder).await;
}

/// The halves of a rename may be read one by one.
#[test]
fn half_a_rename_is_no_news() {
    let mut news = News::default();
    news.add("/m/.new".into(), ReadFlags::MOVED_FROM, 7);
    assert_eq!(news.take(), None);
    news.add("/m/b.yaml".into(), ReadFlags::CLOSE_WRITE, 0);
    assert_eq!(news.take(), None);
    news.add("/m/a.yaml".into(), ReadFlags::MOVED_TO, 7);
    let files = ["/m/.new", "/m/a.yaml", "/m/b.yaml"].map(PathBuf::from);
    assert_eq!(news.take(), Some(Touched::Some(files.into())));
    assert_eq!(news.take(), None);
    // From a folder that nobody watches.
    news.add("/m/a.yaml".into(), ReadFlags::MOVED_TO, 8);
    assert!(news.take().is_some());
}

#[test]
fn a_file_under_another_name_is_no_duplicate_of_itself() {
    let folder = Folder::new("other-name");
    let file = folder.write("a.yaml", &service("a", "10.0.0.1"));
    let mut manifests = Manifests::new(vec![folder.0.clone()], "");
    manifests.read().unwrap();
    let start = Instant::now();
    fs::rename(&file, folder.0.join("b.yaml")).unwrap();
    for at in [start, start + MISSING] {
        let loaded = manifests.refresh(&Touched::All, at);
        assert_eq!((summary(&loaded.changes), loaded.warnings), (vec![], vec![]));
    }
    folder.write("c.yaml", &service("a", "10.0.0.1"));
    assert_eq!(manifests.refresh(&Touched::All, start).warnings.len(), 1);
}

/// In a conflict the older one wins; one without a date is the newest, and of those the one that was
/// there first.
#[test]
fn undated_services_are_as_old_as_they_are_known() {
    let folder = Folder::new("undated");
    let dated = service("dated", "10.0.0.1")
        .replace("name: dated", "name: dated\n  creationTimestamp: '9999-01-01T00:00:00Z'");
    folder.write("b.yaml", &format!("{dated}---\n{}", service("b", "10.0.0.2")));
    let mut manifests = Manifests::new(vec![folder.0.clone()], "");
    let ages = |loaded: &Loaded| -> Vec<(String, i64)> {
        let services = loaded.changes.iter().filter_map(|change| match change {
            Change::Service(service) => Some((service.key.name().to_owned(), service.created)),
            _ => None,
        });
        services.collect()
    };
    let first = ages(&manifests.read().unwrap());
    assert_eq!([&*first[0].0, &*first[1].0], ["b", "dated"]);
    assert!(first[1].1 < first[0].1, "{first:?}");
    let mut refresh = |name: &str, text: &str| {
        folder.write(name, text);
        ages(&manifests.refresh(&Touched::All, Instant::now()))
    };
    let second = refresh("a.yaml", &service("a", "10.0.0.3"));
    assert!(second[0].1 > first[0].1, "{first:?} {second:?}");
    // A change does not make it newer, nor does another file.
    let changed = refresh("b.yaml", &service("b", "10.0.0.4"));
    assert_eq!(changed, first[..1]);
}
