//! The entry of this server in a client's settings: the fields that setup writes, and those that belong to the user.

use serde_json::{Map, Value};

use super::{document::Format, syntax_error::SyntaxError};

/// The name under which every client knows this server.
pub const NAME: &str = "orchestrator-boss";

/// The rule for a field of the entry. All other fields belong to the user.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldRule {
    /// Always this value.
    Exactly(Value),
    /// A number that the user may raise.
    AtLeast(u64),
    /// A list that the user may add to.
    Including(Vec<String>),
    /// This value, unless the user set another one.
    Default(Value),
    /// The program and its arguments in one list. The user's arguments stay unless setup has some.
    CommandLine(Vec<String>),
}

/// A field: its path in the entry, and its rule.
pub type Field = (Vec<&'static str>, FieldRule);

impl FieldRule {
    /// Returns the new value for a field with this value.
    pub fn over(&self, old: Option<&Value>) -> Value {
        match (self, old) {
            (FieldRule::Exactly(value), _) | (FieldRule::Default(value), None) => value.clone(),
            (FieldRule::Default(_), Some(old)) => old.clone(),
            (FieldRule::AtLeast(least), Some(old)) if old.as_f64().is_some_and(|old| old >= *least as f64) => {
                old.clone()
            }
            (FieldRule::AtLeast(least), _) => (*least).into(),
            (FieldRule::Including(names), Some(Value::Array(old))) => {
                let missing = names.iter().map(|name| Value::from(name.as_str())).filter(|name| !old.contains(name));
                old.iter().cloned().chain(missing).collect()
            }
            (FieldRule::Including(names), _) => names.clone().into(),
            (FieldRule::CommandLine(ours), Some(Value::Array(old))) if ours.len() == 1 => {
                ours.iter().map(|it| Value::from(it.as_str())).chain(old.iter().skip(1).cloned()).collect()
            }
            (FieldRule::CommandLine(ours), _) => ours.clone().into(),
        }
    }
}

/// Returns the text with the entry in it; unchanged if the entry is already there.
pub fn set(format: Format, text: &str, path: &[&str], fields: &[Field]) -> Result<String, SyntaxError> {
    let Some(old) = format.get(text, path)? else {
        return format.set(text, path, &new_entry(fields));
    };
    let mut text = text.to_owned();
    for (name, wanted) in fields {
        let old = old.pointer(&pointer(name));
        let new = wanted.over(old);
        if old != Some(&new) {
            text = format.set(&text, &[path, name].concat(), &new)?;
        }
    }
    Ok(text)
}

/// Returns notes about fields that the user has set. Their values are not printed, since they may be secrets.
pub fn user_choices(format: Format, text: &str, path: &[&str], fields: &[Field]) -> Result<Vec<String>, SyntaxError> {
    let Some(entry) = format.get(text, path)? else { return Ok(Vec::new()) };
    let kept = fields.iter().filter_map(|(name, wanted)| {
        let FieldRule::Default(ours) = wanted else { return None };
        let theirs = entry.pointer(&pointer(name))?;
        (theirs != ours).then(|| format!("{} keeps its value; the default of setup is {ours}", name.join(".")))
    });
    Ok(kept.collect())
}

fn pointer(path: &[&str]) -> String {
    path.iter().map(|name| format!("/{name}")).collect()
}

pub fn new_entry(fields: &[Field]) -> Value {
    let mut entry = Value::Object(Map::new());
    for (name, wanted) in fields {
        let place = name.iter().fold(&mut entry, |place, name| &mut place[*name]);
        *place = wanted.over(None);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn user_fields_stay_and_own_are_repaired() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let cases = [
            (FieldRule::Exactly(json!("/new")), json!("/old"), json!("/new")),
            (FieldRule::AtLeast(600), json!(300), json!(600)),
            (FieldRule::AtLeast(600), json!(900.5), json!(900.5)),
            (FieldRule::AtLeast(600), json!("long"), json!(600)),
            (FieldRule::Including(list(&["A", "B"])), json!(["MINE", "B"]), json!(["MINE", "B", "A"])),
            (FieldRule::Default(json!(true)), json!(false), json!(false)),
            (
                FieldRule::CommandLine(list(&["/new"])),
                json!(["/old", "--config", "c"]),
                json!(["/new", "--config", "c"]),
            ),
            (FieldRule::CommandLine(list(&["/new", "--x"])), json!(["/old", "--y"]), json!(["/new", "--x"])),
        ];
        for (wanted, old, new) in cases {
            assert_eq!(wanted.over(Some(&old)), new, "{wanted:?} over {old}");
            assert_eq!(wanted.over(Some(&new)), new, "{wanted:?} is done");
        }
    }
}
