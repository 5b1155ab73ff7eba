//! The site of the documentation: docs/SUMMARY.md is complete, and mdBook makes pages from it whose links
//! lead to existing pages and headings.

use super::{document, documents, links};
use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

const SUMMARY: &str = "docs/SUMMARY.md";
const SITE: &str = "target/site";
/// mdBook makes it for servers of web pages that answer with it at any path.
const NOT_FOUND: &str = "404.html";

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::ParentDir => assert!(plain.pop(), "{} is outside", path.display()),
            Component::CurDir => {}
            part => plain.push(part),
        }
        plain
    })
}

#[test]
fn the_table_of_contents_has_every_page_once() {
    let listed =
        links(&document(SUMMARY)).into_iter().map(|link| plain(&Path::new("docs").join(link)));
    let mut counts = HashMap::<PathBuf, usize>::new();
    listed.for_each(|path| *counts.entry(path).or_default() += 1);
    for path in documents().iter().filter(|path| *path != Path::new(SUMMARY)) {
        assert_eq!(counts.get(path), Some(&1), "{SUMMARY}: {}", path.display());
    }
}

/// The values of an attribute in a page.
fn attributes<'a>(page: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let parts = page.split(&format!(" {name}=\"")).skip(1).collect::<Vec<_>>();
    parts.into_iter().filter_map(|part| part.split('"').next())
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The links of one page that lead to no file of the site or to no element of a page.
fn broken(page: &Path, text: &str, ids: &HashMap<PathBuf, HashSet<&str>>) -> Vec<String> {
    let all = attributes(text, "href").chain(attributes(text, "src"));
    let inside = all.filter(|link| !link.contains(':') && !link.is_empty());
    let lead_nowhere = inside.filter(|link| {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = match file {
            "" => page.to_owned(),
            file => plain(&page.parent().expect("a folder").join(file)),
        };
        let has_anchor =
            || anchor.is_empty() || ids.get(&target).is_some_and(|ids| ids.contains(anchor));
        !(target.is_file() && has_anchor())
    });
    lead_nowhere.map(|link| format!("{}: {link}", page.display())).collect()
}

#[test]
fn every_link_of_the_site_leads_to_a_file_and_an_element() {
    let built = Command::new("docs/build").output().expect("docs/build runs");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    assert!(!said.contains("WARN"), "{said}");
    let pages = files(Path::new(SITE)).into_iter().filter(|path| {
        path.extension().is_some_and(|extension| extension == "html") && !path.ends_with(NOT_FOUND)
    });
    let texts: Vec<_> = pages
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a page");
            (path, text)
        })
        // The site also has the pages of the examples, as files.
        .filter(|(_, text)| text.contains("generated using mdBook"))
        .collect();
    let ids: HashMap<PathBuf, HashSet<&str>> =
        texts.iter().map(|(path, text)| (path.clone(), attributes(text, "id").collect())).collect();
    // Those of docs/, and the home page.
    assert!(texts.len() >= documents().len(), "{} pages", texts.len());
    let links: usize = texts.iter().map(|(_, text)| attributes(text, "href").count()).sum();
    assert!(links > 1000, "{links} links");
    let broken: Vec<_> = texts.iter().flat_map(|(path, text)| broken(path, text, &ids)).collect();
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn a_link_to_a_missing_page_or_heading_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let page = directory.path().join("a.html");
    let text = r##"<h1 id="here"><a href="#here"></a><a href="#there"></a><img src="no.png"><a href="a.html#here">"##;
    std::fs::write(&page, text).expect("it is written");
    let ids = HashMap::from([(page.clone(), attributes(text, "id").collect())]);
    let expected = ["#there", "no.png"].map(|link| format!("{}: {link}", page.display()));
    assert_eq!(broken(&page, text, &ids), expected);
}
