//! Whether a newer CoreDNS reads a Corefile: which of its plugins and options are gone.

/// A version of CoreDNS.
type Release = (u64, u64, u64);

/// What went away.
struct Gone {
    since: Release,
    plugin: &'static str,
    /// Empty for the plugin as a whole.
    option: &'static str,
    instead: &'static str,
}

/// The oldest version that the table below is complete for: kubeadm of Kubernetes 1.17 and newer.
const KNOWN_SINCE: Release = (1, 6, 0);

/// The newest minor version that the table below is complete for.
pub(super) const KNOWN_UNTIL: (u64, u64) = (1, 14);

/// CoreDNS has taken these away since [`KNOWN_SINCE`]; what it only ignores, it still reads.
const GONE: [Gone; 5] = [
    Gone {
        since: (1, 7, 0),
        plugin: "federation",
        option: "",
        instead: "remove it",
    },
    Gone {
        since: (1, 7, 0),
        plugin: "kubernetes",
        option: "resyncperiod",
        instead: "remove it",
    },
    Gone {
        since: (1, 7, 0),
        plugin: "kubernetes",
        option: "upstream",
        instead: "remove it",
    },
    Gone {
        since: (1, 7, 0),
        plugin: "proxy",
        option: "",
        instead: "write forward instead",
    },
    Gone {
        since: (1, 8, 0),
        plugin: "kubernetes",
        option: "transfer",
        instead: "write the plugin transfer instead",
    },
];

/// What a Corefile has that a newer version does not read, a phrase each with its line and the way out.
pub(super) fn obstacles(text: &str, from: Release, to: Release) -> Vec<String> {
    if from < KNOWN_SINCE {
        return vec![format!(
            "what changed since CoreDNS {}.{}.{} is not known here",
            from.0, from.1, from.2
        )];
    }
    let mut found = Vec::new();
    for directive in directives(text) {
        let gone = GONE.iter().find(|gone| {
            gone.since > from
                && gone.since <= to
                && gone.plugin == directive.plugin
                && gone.option == directive.option
        });
        if let Some(gone) = gone {
            let what = [gone.plugin, gone.option].join(" ");
            found.push(format!(
                "line {}: {} ended with {}.{}.{}: {}",
                directive.line,
                what.trim(),
                gone.since.0,
                gone.since.1,
                gone.since.2,
                gone.instead
            ));
        }
    }
    found
}

/// A line that says something inside a server block.
struct Directive<'a> {
    line: usize,
    plugin: &'a str,
    /// Empty on the plugin's own line.
    option: &'a str,
}

/// Plugins are the words that begin lines inside of server blocks, options those inside of plugins' blocks.
fn directives(text: &str) -> Vec<Directive<'_>> {
    let mut depth = 0_usize;
    let mut plugin = "";
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let first = line.split_whitespace().next().unwrap_or_default();
        let word = first.trim_end_matches('{');
        if !word.is_empty() && word != "}" {
            let option = match depth {
                1 => {
                    plugin = word;
                    Some("")
                }
                2 => Some(word),
                _ => None,
            };
            found.extend(option.map(|option| Directive {
                line: at.saturating_add(1),
                plugin,
                option,
            }));
        }
        let count = |brace: char| line.chars().filter(|c| *c == brace).count();
        depth = depth.saturating_add(count('{')).saturating_sub(count('}'));
    }
    found
}
