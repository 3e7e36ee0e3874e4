//! The entry of this server in a client's settings: what setup wants in it, and what it leaves to the user.

use serde_json::{Map, Value};

use super::{document::Format, syntax_error::SyntaxError};

/// The name under which every client knows this server.
pub const NAME: &str = "orchestrator-boss";

/// What a field of the entry shall be. Whatever else is in the entry is the user's.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// Ours alone.
    Exactly(Value),
    /// A number that the user may raise.
    AtLeast(u64),
    /// A list that the user may add to.
    Including(Vec<String>),
    /// Ours unless the user says otherwise.
    Unless(Value),
    /// The program and its arguments in one list. The user's arguments stay unless we have some.
    CommandLine(Vec<String>),
}

/// Its path in the entry.
pub type Field = (Vec<&'static str>, Wanted);

impl Wanted {
    /// What to write over this; the same when nothing has to change.
    pub fn over(&self, old: Option<&Value>) -> Value {
        match (self, old) {
            (Wanted::Exactly(value), _) | (Wanted::Unless(value), None) => value.clone(),
            (Wanted::Unless(_), Some(old)) => old.clone(),
            (Wanted::AtLeast(least), Some(old)) if old.as_f64().is_some_and(|old| old >= *least as f64) => old.clone(),
            (Wanted::AtLeast(least), _) => (*least).into(),
            (Wanted::Including(names), Some(Value::Array(old))) => {
                let missing = names.iter().map(|name| Value::from(name.as_str())).filter(|name| !old.contains(name));
                old.iter().cloned().chain(missing).collect()
            }
            (Wanted::Including(names), _) => names.clone().into(),
            (Wanted::CommandLine(ours), Some(Value::Array(old))) if ours.len() == 1 => {
                ours.iter().map(|it| Value::from(it.as_str())).chain(old.iter().skip(1).cloned()).collect()
            }
            (Wanted::CommandLine(ours), _) => ours.clone().into(),
        }
    }
}

/// The text with the entry in it. The same text when it is there already.
pub fn set(format: Format, text: &str, path: &[&str], fields: &[Field]) -> Result<String, SyntaxError> {
    let Some(old) = format.get(text, path)? else {
        return format.set(text, path, &fresh(fields));
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

/// What the user has said otherwise. Theirs is not repeated: it may be a secret.
pub fn kept(format: Format, text: &str, path: &[&str], fields: &[Field]) -> Result<Vec<String>, SyntaxError> {
    let Some(entry) = format.get(text, path)? else { return Ok(Vec::new()) };
    let kept = fields.iter().filter_map(|(name, wanted)| {
        let Wanted::Unless(ours) = wanted else { return None };
        let theirs = entry.pointer(&pointer(name))?;
        (theirs != ours).then(|| format!("{} stays as it is there; by itself setup writes {ours}", name.join(".")))
    });
    Ok(kept.collect())
}

fn pointer(path: &[&str]) -> String {
    path.iter().map(|name| format!("/{name}")).collect()
}

/// The entry as a new one.
pub fn fresh(fields: &[Field]) -> Value {
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
    fn what_the_user_added_stays_and_what_is_ours_is_mended() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let cases = [
            (Wanted::Exactly(json!("/new")), json!("/old"), json!("/new")),
            (Wanted::AtLeast(600), json!(300), json!(600)),
            (Wanted::AtLeast(600), json!(900.5), json!(900.5)),
            (Wanted::AtLeast(600), json!("long"), json!(600)),
            (Wanted::Including(list(&["A", "B"])), json!(["MINE", "B"]), json!(["MINE", "B", "A"])),
            (Wanted::Unless(json!(true)), json!(false), json!(false)),
            (Wanted::CommandLine(list(&["/new"])), json!(["/old", "--config", "c"]), json!(["/new", "--config", "c"])),
            (Wanted::CommandLine(list(&["/new", "--x"])), json!(["/old", "--y"]), json!(["/new", "--x"])),
        ];
        for (wanted, old, new) in cases {
            assert_eq!(wanted.over(Some(&old)), new, "{wanted:?} over {old}");
            assert_eq!(wanted.over(Some(&new)), new, "{wanted:?} is done");
        }
    }
}
