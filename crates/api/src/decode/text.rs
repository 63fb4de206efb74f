//! The tokens of JSON, with the errors of Go's scanner.

use std::borrow::Cow;

/// Text that is being read.
pub(super) struct Text<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Text<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next byte that is no white space; the end of the text is an error.
    pub(super) fn peek(&mut self) -> Result<u8, String> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied().ok_or_else(too_short)
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), String> {
        match self.peek() {
            Ok(byte) => Err(unexpected(byte, "after top-level value")),
            Err(_) => Ok(()),
        }
    }

    /// Steps over a byte that was peeked at.
    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    /// After an item: a comma leads to another one (`true`), `close` ends the list or object.
    pub(super) fn another(&mut self, close: u8, context: &str) -> Result<bool, String> {
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b',' => Ok(true),
            _ if byte == close => Ok(false),
            _ => Err(unexpected(byte, context)),
        }
    }

    /// The key of an object's member, up to the value.
    pub(super) fn key(&mut self) -> Result<Cow<'a, str>, String> {
        let byte = self.peek()?;
        if byte != b'"' {
            return Err(unexpected(byte, "looking for beginning of object key string"));
        }
        let key = self.string()?;
        let byte = self.peek()?;
        if byte != b':' {
            return Err(unexpected(byte, "after object key"));
        }
        self.at += 1;
        Ok(key)
    }

    /// `true`, `false` or `null`.
    pub(super) fn word(&mut self, word: &str) -> Result<(), String> {
        for (index, expected) in word.bytes().enumerate() {
            let byte = self.bytes.get(self.at).copied().ok_or_else(too_short)?;
            if byte != expected {
                let context = if index == 0 {
                    "looking for beginning of value".to_owned()
                } else {
                    format!("in literal {word} (expecting '{}')", char::from(expected))
                };
                return Err(unexpected(byte, &context));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// A number as it is written.
    pub(super) fn number(&mut self) -> Result<&'a str, String> {
        let start = self.at;
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            Some(byte) => return Err(unexpected(*byte, "in numeric literal")),
            None => return Err(too_short()),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        // Only ASCII was stepped over.
        Ok(std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default())
    }

    fn some_digits(&mut self, context: &str) -> Result<(), String> {
        match self.bytes.get(self.at) {
            Some(b'0'..=b'9') => {
                self.digits();
                Ok(())
            }
            Some(byte) => Err(unexpected(*byte, context)),
            None => Err(too_short()),
        }
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// A string that starts here; bytes that are no UTF-8 become replacement characters, as in Go.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, String> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.bytes.get(self.at).copied().ok_or_else(too_short)? {
                b'"' => {
                    let text = String::from_utf8_lossy(&self.bytes[start..self.at]);
                    self.at += 1;
                    return Ok(text);
                }
                b'\\' => return self.escaped(start),
                byte @ 0..0x20 => return Err(unexpected(byte, "in string literal")),
                _ => self.at += 1,
            }
        }
    }

    /// The slow path: a string with escapes, of which the part from `start` has been read.
    fn escaped(&mut self, start: usize) -> Result<Cow<'a, str>, String> {
        let mut text = String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned();
        loop {
            let plain = self.at;
            let byte = loop {
                match self.bytes.get(self.at).copied().ok_or_else(too_short)? {
                    byte @ (b'"' | b'\\' | 0..0x20) => break byte,
                    _ => self.at += 1,
                }
            };
            text.push_str(&String::from_utf8_lossy(&self.bytes[plain..self.at]));
            self.at += 1;
            match byte {
                b'"' => return Ok(Cow::Owned(text)),
                b'\\' => text.push(self.escape()?),
                control => return Err(unexpected(control, "in string literal")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(too_short)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hexadecimal()?;
                if !(0xd800..0xdc00).contains(&first) || !self.bytes[self.at..].starts_with(b"\\u")
                {
                    return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                let back = self.at;
                self.at += 2;
                let second = self.hexadecimal()?;
                if !(0xdc00..0xe000).contains(&second) {
                    self.at = back;
                    return Ok(char::REPLACEMENT_CHARACTER);
                }
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => return Err(unexpected(other, "in string escape code")),
        })
    }

    fn hexadecimal(&mut self) -> Result<u32, String> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = self.bytes.get(self.at).copied().ok_or_else(too_short)?;
            let digit = char::from(byte).to_digit(16);
            code = code * 16
                + digit.ok_or_else(|| unexpected(byte, "in \\u hexadecimal character escape"))?;
            self.at += 1;
        }
        Ok(code)
    }
}

fn too_short() -> String {
    "unexpected end of JSON input".to_owned()
}

pub(super) fn unexpected(byte: u8, context: &str) -> String {
    let shown = match byte {
        b'\'' => "\\'".to_owned(),
        b'"' => "\"".to_owned(),
        _ => {
            let quoted = crate::status::go_quote(&char::from(byte).to_string());
            quoted[1..quoted.len() - 1].to_owned()
        }
    };
    format!("invalid character '{shown}' {context}")
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks standard base64 as Go reads it, line breaks allowed; gives back the text without them.
pub(super) fn base64(text: &str) -> Result<Cow<'_, str>, String> {
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let kept: Vec<(usize, u8)> =
        text.bytes().enumerate().filter(|(_, byte)| !is_break(byte)).collect();
    let corrupt = |at: usize| format!("illegal base64 data at input byte {at}");
    let padding = kept.iter().rev().take_while(|(_, byte)| *byte == b'=').count();
    let digits = kept.len() - padding;
    for (at, byte) in &kept[..digits] {
        if !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'/') {
            return Err(corrupt(*at));
        }
    }
    let wanted = (4 - digits % 4) % 4;
    if digits % 4 == 1 || padding != wanted {
        let at = if padding > wanted { kept.get(digits + wanted).map(|(at, _)| *at) } else { None };
        return Err(corrupt(at.unwrap_or(text.len())));
    }
    if kept.len() == text.len() {
        return Ok(Cow::Borrowed(text));
    }
    Ok(Cow::Owned(kept.into_iter().map(|(_, byte)| char::from(byte)).collect()))
}
