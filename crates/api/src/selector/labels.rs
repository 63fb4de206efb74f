//! The string form of label selectors, after upstream's `apimachinery/pkg/labels/selector.go`.

use super::{Requirement, SelectorError};

/// Requirements sorted by key, as upstream sorts them.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { text, at: 0 };
    let mut requirements = parser.requirements()?;
    requirements.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(requirements)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'static str),
    End,
}

/// Longest first, so that `==` is not read as two `=`.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", ",", "(", ")", ">", "<"];

impl<'a> Parser<'a> {
    fn requirements(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Symbol("!") => {
                    requirements.push(self.requirement()?);
                    match self.take() {
                        Token::End => return Ok(requirements),
                        Token::Symbol(",") => match self.peek() {
                            Token::Word(_) | Token::Symbol("!") => (),
                            found => return Err(self.wrong(found, "identifier after ','")),
                        },
                        found => return Err(self.wrong(found, "',' or 'end of string'")),
                    }
                }
                Token::End => return Ok(requirements),
                found => return Err(self.wrong(found, "!, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = self.peek() == Token::Symbol("!");
        if absent {
            self.take();
        }
        let key = match self.take() {
            Token::Word(key) => key,
            found => return Err(self.wrong(found, "identifier")),
        };
        if absent {
            return self.checked(key, "DoesNotExist", &[]);
        }
        match self.peek() {
            Token::End | Token::Symbol(",") => self.checked(key, "Exists", &[]),
            _ => self.comparison(key),
        }
    }

    fn comparison(&mut self, key: &'a str) -> Result<Requirement, SelectorError> {
        match self.take() {
            Token::Symbol("=" | "==") => {
                let value = self.value()?;
                self.checked(key, "In", &[value])
            }
            Token::Symbol("!=") => {
                let value = self.value()?;
                self.checked(key, "NotIn", &[value])
            }
            Token::Symbol(">") => {
                let value = self.value()?;
                self.checked(key, "Gt", &[value])
            }
            Token::Symbol("<") => {
                let value = self.value()?;
                self.checked(key, "Lt", &[value])
            }
            Token::Word("in") => {
                let values = self.values()?;
                self.checked(key, "In", &values)
            }
            Token::Word("notin") => {
                let values = self.values()?;
                self.checked(key, "NotIn", &values)
            }
            found => Err(self.wrong(found, "in, notin, =, ==, !=, gt, lt")),
        }
    }

    /// A value may be absent: `app=` asks for the empty value.
    fn value(&mut self) -> Result<&'a str, SelectorError> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(""),
            Token::Word(word) => {
                self.take();
                Ok(word)
            }
            found => Err(self.wrong(found, "identifier")),
        }
    }

    /// `(a, b)`; an empty place is the empty value.
    fn values(&mut self) -> Result<Vec<&'a str>, SelectorError> {
        match self.take() {
            Token::Symbol("(") => (),
            found => return Err(self.wrong(found, "'('")),
        }
        let mut values = Vec::new();
        loop {
            match self.take() {
                Token::Word(word) => {
                    values.push(word);
                    match self.take() {
                        Token::Symbol(")") => return Ok(values),
                        Token::Symbol(",") => {
                            if self.peek() == Token::Symbol(")") {
                                values.push("");
                            }
                        }
                        found => return Err(self.wrong(found, "',' or ')'")),
                    }
                }
                Token::Symbol(",") => {
                    values.push("");
                    if self.peek() == Token::Symbol(")") {
                        values.push("");
                    }
                }
                Token::Symbol(")") => {
                    if values.is_empty() {
                        values.push("");
                    }
                    return Ok(values);
                }
                found => return Err(self.wrong(found, "',', ')' or identifier")),
            }
        }
    }

    fn checked(
        &self,
        key: &str,
        operator: &str,
        values: &[&str],
    ) -> Result<Requirement, SelectorError> {
        Requirement::new(key, operator, values)
            .map_err(|error| SelectorError(format!("unable to parse requirement: {error}")))
    }

    fn wrong(&self, found: Token<'_>, expected: &str) -> SelectorError {
        let found = match found {
            Token::Word(text) => text,
            Token::Symbol(text) => text,
            Token::End => "",
        };
        let message = match expected {
            "identifier" => format!("found '{found}', expected: identifier"),
            _ => format!("found '{found}', expected: {expected}"),
        };
        SelectorError(format!("unable to parse requirement: {message}"))
    }

    fn peek(&self) -> Token<'a> {
        self.next().0
    }

    fn take(&mut self) -> Token<'a> {
        let (token, after) = self.next();
        self.at = after;
        token
    }

    fn next(&self) -> (Token<'a>, usize) {
        let rest = self.text[self.at..].trim_start_matches([' ', '\t', '\r', '\n']);
        let start = self.text.len() - rest.len();
        if rest.is_empty() {
            return (Token::End, start);
        }
        for symbol in SYMBOLS {
            if rest.starts_with(symbol) {
                return (Token::Symbol(symbol), start + symbol.len());
            }
        }
        let ends = |character: char| " \t\r\n=!,()<>".contains(character);
        let length = rest.find(ends).unwrap_or(rest.len());
        (Token::Word(&rest[..length]), start + length)
    }
}
