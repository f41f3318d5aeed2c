//! Generated files are what the code would write now.

use crate::tree;

#[test]
fn printed_kinds_and_policies_are_the_committed_ones() {
    let printed = capstan_api::manifests::yaml();
    let printed: Vec<&str> = printed
        .split("---\n")
        .filter(|text| !text.is_empty())
        .collect();
    let mut kept = Vec::new();
    for file in tree::ending(".yaml")
        .into_iter()
        .filter(|file| file.starts_with("host/api/crds/"))
    {
        let text = tree::text(file);
        kept.extend(
            text.split("---\n")
                .filter(|text| !text.is_empty())
                .map(str::to_owned),
        );
    }
    assert_eq!(
        kept.len(),
        printed.len(),
        "run `just crd`, and remove files of kinds that are gone"
    );
    let stale: Vec<String> = printed
        .iter()
        .filter(|text| !kept.iter().any(|kept| kept == *text))
        .map(|text| {
            text.lines()
                .find(|line| line.contains("name:"))
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    tree::none(&stale, "run `just crd`: these are not as committed");
}

/// The page of labels and annotations.
const PAGE: &str = "host/docs/labels-and-annotations.md";

/// Constants of a source with their doc comments: value and text.
fn constants(file: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut doc = String::new();
    let text = tree::text(file).replace("=\n    \"", "= \"");
    for line in text.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("/// ") {
            if !doc.is_empty() {
                doc.push(' ');
            }
            doc.push_str(words);
        } else if line.starts_with("pub const ") {
            let value = line.split('"').nth(1).unwrap_or_default();
            found.push((value.to_owned(), std::mem::take(&mut doc)));
        } else {
            doc.clear();
        }
    }
    found
}

/// The page as the constants say it.
fn page() -> String {
    let mut text = "# Labels and annotations\n\nMade from `host/api/src/label.rs` and `host/api/src/annotation.rs` by `just labels`.\n"
        .to_owned();
    let sources = [
        ("Labels", "host/api/src/label.rs"),
        ("Annotations", "host/api/src/annotation.rs"),
        (
            "Annotations and labels of ClusterResourceSets",
            "host/api/src/addons.rs",
        ),
    ];
    for (title, file) in sources {
        let mut rows = constants(file);
        if file.ends_with("addons.rs") {
            rows.retain(|(value, _)| value.contains("capstan.dev/"));
        }
        rows.sort();
        text.push_str(&format!(
            "\n## {title}\n\n| | where it is, and what it means |\n| --- | --- |\n"
        ));
        for (value, doc) in rows {
            // Links between constants mean nothing on a page.
            let doc = doc.replace("[`", "`").replace("`]", "`");
            text.push_str(&format!("| `{value}` | {doc} |\n"));
        }
    }
    text
}

#[test]
fn the_page_of_labels_and_annotations_is_the_committed_one() {
    let fresh = page();
    let place = tree::root().join(PAGE);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&place, &fresh).unwrap();
    }
    let kept = std::fs::read_to_string(&place).unwrap_or_default();
    assert!(
        kept == fresh,
        "run `just labels`: {PAGE} is not as the constants say"
    );
}
