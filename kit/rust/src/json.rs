//! As much of JSON as the daemon's replies need; what is not as it should be reads as absent.

/// A value, as the text that begins with it.
#[derive(Clone, Copy)]
pub struct Value<'a>(pub &'a str);

impl<'a> Value<'a> {
    /// The value of a key of this object.
    pub fn member(self, key: &str) -> Option<Value<'a>> {
        let mut rest = self.0.strip_prefix('{')?.trim_start();
        while rest.starts_with('"') {
            let (name, behind) = rest.split_at(end(rest));
            let value = behind.trim_start().strip_prefix(':')?.trim_start();
            if name.trim_matches('"') == key {
                return Some(Value(value));
            }
            rest = value[end(value)..]
                .trim_start()
                .strip_prefix(',')?
                .trim_start();
        }
        None
    }

    /// Whether this is one object and nothing behind it, so that it stays a part of what it is put
    /// into. One that does not end passes, and the daemon can make nothing of what it is put into.
    pub fn is_object(self) -> bool {
        let text = self.0.trim();
        text.starts_with('{') && end(text) == text.len()
    }

    /// The first of this list.
    pub fn first(self) -> Option<Value<'a>> {
        let rest = self.0.strip_prefix('[')?.trim_start();
        (!rest.starts_with(']')).then_some(Value(rest))
    }

    /// This number.
    pub fn number(self) -> Option<u32> {
        self.0[..end(self.0)].trim_end().parse().ok()
    }

    /// Whether this is `false`.
    pub fn is_false(self) -> bool {
        self.0.starts_with("false")
    }

    /// This string.
    pub fn string(self) -> Option<String> {
        let mut letters = self.0.strip_prefix('"')?.chars();
        let mut text = String::new();
        loop {
            match letters.next()? {
                '"' => return Some(text),
                '\\' => text.push(unescaped(&mut letters)?),
                letter => text.push(letter),
            }
        }
    }
}

fn unescaped(letters: &mut std::str::Chars) -> Option<char> {
    Some(match letters.next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'u' => {
            let digits: String = letters.take(4).collect();
            let number = u32::from_str_radix(&digits, 16).ok()?;
            char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        letter => letter,
    })
}

/// Where the value ends that this text begins with.
fn end(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if escaped {
            escaped = false;
            continue;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' => {
                quoted = !quoted;
                if !quoted && depth == 0 {
                    return at + 1;
                }
            }
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b',' | b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        r#"{"a": {"x": [1, "}\"]"], "y": {}}, "b":"\u00b5s \"q\"\n", "c":true,"d": 17 , "e":[]}"#;

    #[test]
    fn members_are_found_behind_others_of_any_shape() {
        let value = Value(TEXT);
        assert_eq!(
            value.member("b").and_then(Value::string).as_deref(),
            Some("µs \"q\"\n")
        );
        assert!(value.member("c").map_or(false, |told| !told.is_false()));
        assert_eq!(value.member("d").and_then(Value::number), Some(17));
        assert!(value.member("x").is_none());
        let list = value.member("a").and_then(|a| a.member("x"));
        assert_eq!(list.and_then(Value::first).and_then(Value::number), Some(1));
        assert!(value.member("e").and_then(Value::first).is_none());
    }

    #[test]
    fn an_object_is_one_and_nothing_behind_it() {
        assert!(Value(TEXT).is_object());
        assert!(Value(" {\"a\":\"}\"}\n").is_object());
        for text in ["", "[]", "\"{}\"", "{},{}", "{} 1", "{},\"committer\":{}"] {
            assert!(!Value(text).is_object(), "{text}");
        }
    }

    #[test]
    fn what_is_cut_is_absent_and_no_panic() {
        for length in 0..TEXT.len() {
            if let Some(text) = TEXT.get(..length) {
                let value = Value(text);
                for key in ["a", "b", "c", "d", "e", "x"] {
                    let found = value.member(key);
                    let _ = found.and_then(Value::string);
                    let _ = found.and_then(Value::number);
                    let _ = found.and_then(Value::first);
                }
            }
        }
    }
}
