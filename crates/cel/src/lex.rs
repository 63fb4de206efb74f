//! From text to tokens.

use crate::problem::Problem;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Name(String),
    Int(u64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Operators and brackets.
    Sign(&'static str),
    End,
}

#[derive(Debug, Clone)]
pub(crate) struct Spanned {
    pub(crate) at: usize,
    pub(crate) end: usize,
    pub(crate) token: Token,
}

/// The longest first.
const SIGNS: [&str; 25] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", "(", ")",
    "[", "]", "{", "}", ",", ".", "=",
];

/// All tokens of a text, and `End`.
pub(crate) fn tokens(text: &str) -> Result<Vec<Spanned>, Problem> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let token = lexer.next()?;
        let is_end = token == Token::End;
        tokens.push(Spanned { at, end: lexer.at, token });
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn problem(at: usize, message: impl Into<String>) -> Problem {
        Problem { at, message: format!("Syntax error: {}", message.into()) }
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let blanks =
                rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']).len();
            self.at += blanks;
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn next(&mut self) -> Result<Token, Problem> {
        let Some(first) = self.peek() else { return Ok(Token::End) };
        if let Some(prefix) = self.string_prefix() {
            return self.string(prefix);
        }
        let is_fraction =
            first == '.' && self.rest()[1..].starts_with(|next: char| next.is_ascii_digit());
        if first.is_ascii_digit() || is_fraction {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let is_part = |next: char| next.is_ascii_alphanumeric() || next == '_';
            let rest = self.rest();
            let name = rest[..rest.find(|next| !is_part(next)).unwrap_or(rest.len())].to_owned();
            self.at += name.len();
            return Ok(Token::Name(name));
        }
        match SIGNS.into_iter().find(|sign| self.rest().starts_with(sign)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            None => Err(Self::problem(self.at, format!("token recognition error at: '{first}'"))),
        }
    }

    /// `r` and `b` in any order and case, if a quote follows.
    fn string_prefix(&self) -> Option<&'static str> {
        let lower: String = self.rest().chars().take(3).collect::<String>().to_ascii_lowercase();
        ["rb", "br", "r", "b", ""].into_iter().find(|prefix| {
            lower.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['"', '\'']))
        })
    }

    fn string(&mut self, prefix: &str) -> Result<Token, Problem> {
        let start = self.at;
        self.at += prefix.len();
        let (raw, is_bytes) = (prefix.contains('r'), prefix.contains('b'));
        let unterminated = || Self::problem(start, "token recognition error: unterminated string");
        let quote = self.bump().ok_or_else(unterminated)?;
        let triple = self.rest().starts_with(&String::from(quote).repeat(2));
        if triple {
            self.at += 2;
        }
        let end = if triple { String::from(quote).repeat(3) } else { quote.to_string() };
        let mut bytes = Vec::new();
        loop {
            if self.rest().starts_with(&end) {
                self.at += end.len();
                break;
            }
            let next = self.bump().ok_or_else(unterminated)?;
            match next {
                '\n' | '\r' if !triple => return Err(unterminated()),
                '\\' if !raw => self.escape(is_bytes, &mut bytes)?,
                other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if is_bytes {
            return Ok(Token::Bytes(bytes));
        }
        let text = String::from_utf8(bytes).map_err(|_| Self::problem(start, "invalid string"))?;
        Ok(Token::Text(text))
    }

    fn escape(&mut self, is_bytes: bool, out: &mut Vec<u8>) -> Result<(), Problem> {
        let at = self.at - 1;
        let wrong = || Self::problem(at, "invalid escape sequence");
        let kind = self.bump().ok_or_else(wrong)?;
        let simple = match kind {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '`' | '?' => kind,
            'x' | 'X' | 'u' | 'U' | '0'..='3' => {
                let (digits, radix) = match kind {
                    'x' | 'X' => (2, 16),
                    'u' => (4, 16),
                    'U' => (8, 16),
                    _ => {
                        self.at -= 1;
                        (3, 8)
                    }
                };
                let code = self.rest().get(..digits).ok_or_else(wrong)?;
                let code = u32::from_str_radix(code, radix).map_err(|_| wrong())?;
                self.at += digits;
                if is_bytes && digits <= 3 {
                    out.push(u8::try_from(code).map_err(|_| wrong())?);
                    return Ok(());
                }
                char::from_u32(code).ok_or_else(wrong)?
            }
            _ => return Err(wrong()),
        };
        out.extend_from_slice(simple.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn number(&mut self) -> Result<Token, Problem> {
        let start = self.at;
        let take = |lexer: &mut Self, is_part: fn(char) -> bool| {
            let rest = lexer.rest();
            let length = rest.find(|next| !is_part(next)).unwrap_or(rest.len());
            lexer.at += length;
            lexer.at - length..lexer.at
        };
        let wrong = |what: &str| Problem { at: start, message: format!("invalid {what} literal") };
        if self.rest().starts_with("0x") || self.rest().starts_with("0X") {
            self.at += 2;
            let digits = take(self, |next| next.is_ascii_hexdigit());
            let value = u64::from_str_radix(&self.text[digits], 16).map_err(|_| wrong("int"))?;
            return Ok(self.whole(value));
        }
        take(self, |next| next.is_ascii_digit());
        let mut is_double = false;
        let mut after = self.rest().chars();
        if after.next() == Some('.') && after.next().is_some_and(|next| next.is_ascii_digit()) {
            is_double = true;
            self.at += 1;
            take(self, |next| next.is_ascii_digit());
        }
        if self.rest().starts_with(['e', 'E']) {
            let sign = usize::from(self.rest()[1..].starts_with(['+', '-']));
            if self.rest()[1 + sign..].starts_with(|next: char| next.is_ascii_digit()) {
                is_double = true;
                self.at += 1 + sign;
                take(self, |next| next.is_ascii_digit());
            }
        }
        let text = &self.text[start..self.at];
        if is_double {
            return text.parse().map(Token::Double).map_err(|_| wrong("double"));
        }
        let value = text.parse().map_err(|_| wrong("int"))?;
        Ok(self.whole(value))
    }

    fn whole(&mut self, value: u64) -> Token {
        if self.rest().starts_with(['u', 'U']) {
            self.at += 1;
            return Token::Uint(value);
        }
        Token::Int(value)
    }
}
