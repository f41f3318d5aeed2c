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
