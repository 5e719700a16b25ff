//! Variables that a repository asks for, and how a stack gets them.

use crate::env::Env;
use crate::names::EnvName;

use super::mistakes::Mistake;

/// A variable that app.json names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Its name.
    pub name: EnvName,
    /// What it should be.
    pub wanted: Wanted,
}

/// The value of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This text where the stack has none of its own.
    Default(String),
    /// This text at every deploy, whatever the stack has.
    Always(String),
    /// A secret, made once.
    Secret,
    /// Something that only a person knows.
    Required,
}

/// What came of some wishes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// The stack's variables with them.
    pub env: Env,
    /// Those that are new or other than before, by name.
    pub set: Vec<EnvName>,
}

/// Gives a stack the variables that are wished for and that it does not have; `secret` makes one.
///
/// # Errors
/// One line with all that only a person can set.
pub fn grant(wishes: &[Wish], has: &Env, mut secret: impl FnMut() -> String) -> Result<Granted, Mistake> {
    let mut granted = Granted { env: has.clone(), set: Vec::new() };
    let mut missing = Vec::new();
    for Wish { name, wanted } in wishes {
        let old = has.value(name);
        let new = match wanted {
            Wanted::Always(text) => Some(text.clone()).filter(|text| old != Some(text)),
            Wanted::Default(text) => Some(text.clone()).filter(|_| old.is_none()),
            Wanted::Secret if old.is_none() => Some(secret()),
            Wanted::Required if old.is_none() => {
                missing.push(name.as_str());
                None
            }
            Wanted::Secret | Wanted::Required => None,
        };
        if let Some(value) = new {
            granted.env.set(name.clone(), value);
            granted.set.push(name.clone());
        }
    }
    if missing.is_empty() { Ok(granted) } else { Err(lacking(&missing)) }
}

fn lacking(names: &[&str]) -> Mistake {
    let (nouns, verb) = if names.len() == 1 { ("variable", "is") } else { ("variables", "are") };
    let values: Vec<String> = names.iter().map(|name| format!("{name}=…")).collect();
    let message = format!(
        "the {nouns} {} {verb} required and not set; set them and push again: env set STACK {} (a new \
         stack needs `stacks create STACK` before)",
        names.join(", "),
        values.join(" ")
    );
    Mistake::of_file("app.json", message.replace("set them", if names.len() == 1 { "set it" } else { "set them" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(name: &str, wanted: Wanted) -> Wish {
        Wish { name: name.parse().unwrap(), wanted }
    }

    #[test]
    fn what_a_stack_has_stays_and_secrets_are_made_once() {
        let wishes = [
            wish("KEY", Wanted::Secret),
            wish("LEVEL", Wanted::Default("info".into())),
            wish("MODE", Wanted::Always("live".into())),
            wish("TOKEN", Wanted::Required),
        ];
        let has = crate::env::from_arguments(["TOKEN=t", "MODE=test"]).unwrap();
        let first = grant(&wishes, &has, || "s1".into()).unwrap();
        assert_eq!(first.env.pairs(), ["KEY=s1", "LEVEL=info", "MODE=live", "TOKEN=t"]);
        assert_eq!(first.set.iter().map(EnvName::as_str).collect::<Vec<_>>(), ["KEY", "LEVEL", "MODE"]);
        let second = grant(&wishes, &first.env, || "s2".into()).unwrap();
        assert_eq!((second.env, second.set), (first.env, Vec::new()));
    }

    #[test]
    fn all_that_a_person_has_to_set_are_one_line() {
        let wishes = [wish("A", Wanted::Required), wish("B", Wanted::Required), wish("C", Wanted::Secret)];
        let told = grant(&wishes, &Env::new(), String::new).unwrap_err().to_string();
        assert_eq!(
            told,
            "app.json: the variables A, B are required and not set; set them and push again: env set STACK A=… B=… \
             (a new stack needs `stacks create STACK` before)"
        );
    }
}
