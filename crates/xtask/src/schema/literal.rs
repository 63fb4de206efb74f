//! Reads the JSON schemas in `k8s-openapi`'s sources.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// Reads the argument of `json_schema!`: JSON in Rust's spelling, with references as Rust expressions.
pub(super) struct Literal<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Literal<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn value(&mut self) -> Result<Value> {
        match self.peek()? {
            '{' => self.object(),
            '[' => self.array(),
            '"' => Ok(self.string()?.into()),
            '(' => self.reference(),
            '_' => Ok(json!({ "$ref": self.path()? })),
            _ => {
                let rest = &self.text[self.at..];
                let end = rest.find([',', '}', ']', '\n']).context("a value without an end")?;
                self.at += end;
                serde_json::from_str(rest[..end].trim())
                    .with_context(|| format!("no JSON value: {:.60}", &rest[..end]))
            }
        }
    }

    fn object(&mut self) -> Result<Value> {
        self.expect("{")?;
        let mut object = Map::new();
        while self.peek()? != '}' {
            let key = self.string()?;
            self.expect(":")?;
            object.insert(key, self.value()?);
            if self.peek()? == ',' {
                self.expect(",")?;
            }
        }
        self.expect("}")?;
        Ok(object.into())
    }

    fn array(&mut self) -> Result<Value> {
        self.expect("[")?;
        let mut items = Vec::new();
        while self.peek()? != ']' {
            items.push(self.value()?);
            if self.peek()? == ',' {
                self.expect(",")?;
            }
        }
        self.expect("]")?;
        Ok(items.into())
    }

    /// `(__gen.subschema_for::<PATH>())`, alone or in a block that adds a description.
    fn reference(&mut self) -> Result<Value> {
        self.expect("(")?;
        let described = self.peek()? == '{';
        let path = self.path()?;
        let mut schema = Map::from_iter([("$ref".to_owned(), Value::from(path))]);
        if described {
            let marker = "insert(\"description\".into(),";
            let start =
                self.text[self.at..].find(marker).context("a block without a description")?;
            self.at += start + marker.len();
            schema.insert("description".to_owned(), self.string()?.into());
            let end = self.text[self.at..].find("})").context("a block without an end")?;
            self.at += end + "})".len();
        } else {
            self.expect(")")?;
        }
        Ok(schema.into())
    }

    /// The path in the next `__gen.subschema_for::<PATH>()`.
    fn path(&mut self) -> Result<String> {
        let start = self.text[self.at..]
            .find("subschema_for::<")
            .context("an expression that is no reference")?;
        self.at += start + "subschema_for::<".len();
        let end = self.text[self.at..].find(">()").context("a reference without an end")?;
        let path = self.text[self.at..self.at + end].to_owned();
        self.at += end + ">()".len();
        Ok(path)
    }

    fn string(&mut self) -> Result<String> {
        self.expect("\"")?;
        let mut text = String::new();
        let mut characters = self.text[self.at..].char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '\\' => match characters.next().map(|(_, escaped)| escaped) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(plain @ ('"' | '\\' | '\'')) => text.push(plain),
                    other => bail!("an escape that we do not know: {other:?}"),
                },
                plain => text.push(plain),
            }
        }
        bail!("a string without an end")
    }

    fn peek(&mut self) -> Result<char> {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest.chars().next().context("the text ends too early")
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        self.peek()?;
        if !self.text[self.at..].starts_with(token) {
            bail!("expected {token} before {:.40}", &self.text[self.at..]);
        }
        self.at += token.len();
        Ok(())
    }
}
