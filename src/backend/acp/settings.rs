//! Settings of a session: finds the option of the agent that is meant, and makes the request that sets it.

use serde_json::{Value, json};

use super::traits::{SessionSetting, SettingKind};
use crate::backend::lines::{items, text};

/// Maximum number of values that an error names.
const NAMED: usize = 8;

/// A request that applies a setting: its method and its parameters.
pub type SettingRequest = (&'static str, Value);

/// Returns the request for a setting. `offers` is the answer that opened the session. Fails with the reason if the
/// agent offers none of the values. A model is requested even if it is not listed, since some agents accept others.
pub fn request(setting: &SessionSetting, offers: &Value, session_id: &str) -> Result<SettingRequest, String> {
    let kind = setting.kind;
    let option = items(offers, "/configOptions").find(|option| is_meant(kind, option));
    if let Some(option) = option {
        let offered = values(option);
        let is_offered = |value: &&String| kind == SettingKind::Model || offered.contains(&value.as_str());
        let params = |value| json!({"sessionId": session_id, "configId": option["id"], "value": value});
        let value = setting.values.iter().find(is_offered);
        return value.map(|value| ("session/set_config_option", params(value))).ok_or_else(|| only(kind, &offered));
    }
    // Agents that do not know `configOptions` list their modes separately.
    let modes: Vec<&str> = items(offers, "/modes/availableModes").map(|mode| text(mode, "/id")).collect();
    if kind != SettingKind::Mode || modes.is_empty() {
        return Err(format!("it offers no choice of {}", noun(kind)));
    }
    let mode = setting.values.iter().find(|value| modes.contains(&value.as_str()));
    let params = |mode| json!({"sessionId": session_id, "modeId": mode});
    mode.map(|mode| ("session/set_mode", params(mode))).ok_or_else(|| only(kind, &modes))
}

fn only(kind: SettingKind, offered: &[&str]) -> String {
    let offered = offered.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    format!("it offers only {offered} as {}", noun(kind))
}

/// Returns the current value of a setting, as the agent reports it.
pub fn current(kind: SettingKind, offers: &Value) -> Option<&str> {
    let option = items(offers, "/configOptions").find(|option| is_meant(kind, option))?;
    option["currentValue"].as_str()
}

/// Returns the word for a setting in texts.
pub fn noun(kind: SettingKind) -> &'static str {
    match kind {
        SettingKind::Mode => "mode",
        SettingKind::Model => "model",
        SettingKind::Effort => "effort",
        SettingKind::Other(id) => id,
    }
}

/// Returns whether an option is this setting. Agents name it by its category, its id, or both.
fn is_meant(kind: SettingKind, option: &Value) -> bool {
    let (category, id) = (text(option, "/category"), text(option, "/id"));
    match kind {
        SettingKind::Mode => category == "mode" || (category.is_empty() && id == "mode"),
        SettingKind::Model => category == "model" || (category.is_empty() && id == "model"),
        SettingKind::Effort => {
            matches!(category, "thought_level" | "thinking") || matches!(id, "effort" | "reasoning_effort")
        }
        SettingKind::Other(wanted) => id == wanted,
    }
}

/// Returns the values of an option. They may be in groups.
fn values(option: &Value) -> Vec<&str> {
    items(option, "/options")
        .flat_map(|choice| std::iter::once(choice).chain(items(choice, "/options")))
        .filter_map(|choice| choice["value"].as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers() -> Value {
        json!({
            "modes": {"availableModes": [{"id": "ask"}, {"id": "all"}]},
            "configOptions": [
                {"id": "mode", "category": "mode", "options": [{"value": "ask"}, {"value": "all"}]},
                {"id": "m", "category": "model", "options": [{"name": "group", "options": [{"value": "a"}]}]},
                {"id": "reasoning_effort", "category": "thought_level", "options": [{"value": "low"}]},
                {"id": "allow_all", "category": "permissions", "options": [{"value": "on"}, {"value": "off"}]},
            ],
        })
    }

    fn asked_of(offers: &Value, kind: SettingKind, values: &[&str]) -> Result<String, String> {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        let setting = SessionSetting { kind, values, is_required: true };
        let (method, params) = request(&setting, offers, "s")?;
        assert_eq!(params["sessionId"], "s");
        let id = params.get("configId").or(params.get("modeId")).and_then(Value::as_str).unwrap_or_default();
        Ok(format!("{method} {id} {}", params["value"].as_str().unwrap_or_default()))
    }

    fn asked(kind: SettingKind, value: &str) -> Result<String, String> {
        asked_of(&offers(), kind, &[value])
    }

    #[test]
    fn setting_is_found_by_mode_category_or_id() {
        let found = |kind, value| asked(kind, value).unwrap();
        assert_eq!(found(SettingKind::Mode, "all"), "session/set_config_option mode all");
        assert_eq!(found(SettingKind::Model, "b"), "session/set_config_option m b");
        assert_eq!(found(SettingKind::Effort, "low"), "session/set_config_option reasoning_effort low");
        assert_eq!(found(SettingKind::Other("allow_all"), "on"), "session/set_config_option allow_all on");
    }

    #[test]
    fn first_offered_value_is_set() {
        let modes = json!({"modes": {"availableModes": [{"id": "ask"}, {"id": "edit"}]}});
        let mode = |values: &[&str]| asked_of(&modes, SettingKind::Mode, values);
        assert_eq!(mode(&["all", "edit", "ask"]).unwrap(), "session/set_mode edit ");
        assert_eq!(mode(&["all"]).unwrap_err(), "it offers only ask, edit as mode");
        assert_eq!(asked_of(&json!({}), SettingKind::Mode, &["all"]).unwrap_err(), "it offers no choice of mode");
    }

    #[test]
    fn missing_offer_is_the_reason() {
        assert_eq!(asked(SettingKind::Mode, "none").unwrap_err(), "it offers only ask, all as mode");
        assert_eq!(asked(SettingKind::Effort, "max").unwrap_err(), "it offers only low as effort");
        assert_eq!(asked(SettingKind::Other("x"), "on").unwrap_err(), "it offers no choice of x");
    }
}
