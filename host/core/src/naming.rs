//! Names of generated objects: name templates, random endings and the limit of 63 characters (contract: upstream
//! `internal/topology/names`).

/// Characters of random endings: no vowels and nothing that is easily confused, so that no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Length of random endings.
const RANDOM_LENGTH: usize = 5;

/// Longest name that fits into a label value and a host name.
pub const NAME_MAX: usize = 63;

/// How much of a base is kept before a random ending.
const BASE_MAX: usize = NAME_MAX - RANDOM_LENGTH;

/// The template of Machine names when a MachineSet has none.
pub const MACHINE_SET_DEFAULT: &str = "{{ .machineSet.name }}-{{ .random }}";

/// Where random endings come from: a seed that the shell draws for each reconcile, so that decisions stay functions of what
/// they were given.
#[derive(Clone, Debug)]
pub struct Endings {
    state: u64,
}

impl Endings {
    /// Endings that follow from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next ending.
    pub fn draw(&mut self) -> String {
        let mut bits = self.next();
        let size = ALPHABET.len() as u64;
        let mut ending = String::with_capacity(RANDOM_LENGTH);
        for _ in 0..RANDOM_LENGTH {
            let index =
                usize::try_from(bits.checked_rem(size).unwrap_or_default()).unwrap_or_default();
            ending.push(char::from(ALPHABET.get(index).copied().unwrap_or(b'b')));
            bits = bits.checked_div(size).unwrap_or_default();
        }
        ending
    }

    /// SplitMix64: small, and every seed gives another sequence.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Why a name template gives no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamingError {
    /// A variable that does not exist.
    #[error("name template {template:?} has the unknown variable {variable:?}")]
    UnknownVariable {
        /// The template.
        template: String,
        /// What was between the braces.
        variable: String,
    },
    /// Braces that are not closed.
    #[error("name template {template:?} has braces that are not closed")]
    Unclosed {
        /// The template.
        template: String,
    },
    /// Every object would get the same name.
    #[error("name template {template:?} must contain {{{{ .random }}}}")]
    NotRandom {
        /// The template.
        template: String,
    },
}

/// Fills in a name template. `variables` are names without the leading dot, such as `machineSet.name`; `random` is known
/// besides. A result that is too long keeps its first 58 characters and gets another random ending.
///
/// # Errors
/// When the template is not one, or would give every object the same name.
pub fn from_template(
    template: &str,
    variables: &[(&str, &str)],
    endings: &mut Endings,
) -> Result<String, NamingError> {
    let mut name = String::new();
    let mut rest = template;
    let mut random = false;
    while let Some((before, after)) = rest.split_once("{{") {
        name.push_str(before);
        let Some((inside, after)) = after.split_once("}}") else {
            return Err(NamingError::Unclosed {
                template: template.to_owned(),
            });
        };
        let variable = inside.trim();
        if variable == ".random" {
            random = true;
            name.push_str(&endings.draw());
        } else {
            let known = variables
                .iter()
                .find(|(known, _)| variable.strip_prefix('.') == Some(known));
            let Some((_, value)) = known else {
                return Err(NamingError::UnknownVariable {
                    template: template.to_owned(),
                    variable: variable.to_owned(),
                });
            };
            name.push_str(value);
        }
        rest = after;
    }
    name.push_str(rest);
    if !random {
        return Err(NamingError::NotRandom {
            template: template.to_owned(),
        });
    }
    Ok(shortened(&name, endings))
}

/// `<base>-<ending>`, with the base cut so that the whole fits.
#[must_use]
pub fn with_ending(base: &str, ending: &str) -> String {
    let base: String = base.chars().take(BASE_MAX.saturating_sub(1)).collect();
    format!("{base}-{ending}")
}

/// The name itself when it fits, else its beginning with a random ending.
fn shortened(name: &str, endings: &mut Endings) -> String {
    if name.chars().count() <= NAME_MAX {
        return name.to_owned();
    }
    let base: String = name.chars().take(BASE_MAX).collect();
    format!("{base}{}", endings.draw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_differ_and_follow_from_the_seed() {
        let draw = |seed| {
            let mut endings = Endings::new(seed);
            (0..50).map(|_| endings.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let unique: std::collections::BTreeSet<_> = draw(1).into_iter().collect();
        assert_eq!(unique.len(), 50);
        assert!(
            unique
                .iter()
                .all(|e| e.len() == 5 && e.bytes().all(|b| ALPHABET.contains(&b)))
        );
    }

    #[test]
    fn a_template_is_filled_in() {
        let mut endings = Endings::new(1);
        let name = from_template(
            "{{ .cluster.name }}-x-{{.random}}",
            &[("cluster.name", "c")],
            &mut endings,
        );
        let name = name.expect("a name");
        assert!(name.starts_with("c-x-"), "{name}");
        assert_eq!(name.len(), "c-x-".len() + 5);
    }

    #[test]
    fn a_long_name_is_cut_and_stays_unique() {
        let mut endings = Endings::new(1);
        let long = "a".repeat(80);
        let variables = [("machineSet.name", long.as_str())];
        let one = from_template(MACHINE_SET_DEFAULT, &variables, &mut endings).expect("a name");
        let two = from_template(MACHINE_SET_DEFAULT, &variables, &mut endings).expect("a name");
        assert_eq!(one.len(), 63);
        assert_ne!(one, two);
        assert_eq!(with_ending(&long, "bcdfg").len(), 63);
    }

    #[test]
    fn a_bad_template_is_named() {
        let mut endings = Endings::new(1);
        assert!(matches!(
            from_template("x-{{ .oops }}", &[], &mut endings),
            Err(NamingError::UnknownVariable { .. })
        ));
        assert!(matches!(
            from_template("x-{{ .random", &[], &mut endings),
            Err(NamingError::Unclosed { .. })
        ));
        assert!(matches!(
            from_template("x", &[], &mut endings),
            Err(NamingError::NotRandom { .. })
        ));
    }
}
