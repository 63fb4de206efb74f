//! From tokens to expressions, by precedence climbing.

use crate::ast::{Entry, Expr, Field, Item, Kind};
use crate::lex::{Spanned, Token, tokens};
use crate::macros;
use crate::problem::{Problem, Problems};
use crate::signatures;
use crate::value::Value;

/// How long a text may be; cel-go's bound.
const MAX_TEXT_CHARS: usize = 100_000;

/// How deep brackets may be nested: each level takes stack of the parser.
const MAX_NESTING: usize = 100;

/// How deep an expression may be: each level takes stack of the checker and of the evaluation.
const MAX_DEPTH: usize = 200;

/// What ANTLR would have liked instead, as cel-go prints it.
const EXPECTED: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Words that are no names of variables.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// True for the language's own words, which no variable or field is named by.
pub fn is_reserved(word: &str) -> bool {
    matches!(word, "true" | "false" | "null" | "in") || RESERVED.contains(&word)
}

/// Parses a text.
pub(crate) fn parse(text: &str) -> Result<Expr, Problems> {
    let failed = |problem| Problems::new(text, vec![problem]);
    if text.chars().count() > MAX_TEXT_CHARS {
        let message = format!(
            "expression code point size exceeds limit: size: {}, limit {MAX_TEXT_CHARS}",
            text.chars().count()
        );
        return Err(Problems::new("", vec![Problem { at: 0, message }]));
    }
    let tokens = tokens(text).map_err(failed)?;
    let mut parser = Parser { text, tokens, next: 0, nesting: 0 };
    let expr = parser.expression().map_err(failed)?;
    if *parser.peek() != Token::End {
        let message =
            format!("Syntax error: mismatched input '{}' expecting <EOF>", parser.shown());
        return Err(failed(Problem { at: parser.at(), message }));
    }
    Ok(expr)
}

/// An expression, if it is not too deep.
pub(crate) fn expr(at: usize, kind: Kind) -> Result<Expr, Problem> {
    let mut expr = Expr { at, kind, depth: 0 };
    let mut depth = 0;
    expr.each_child(&mut |child| depth = depth.max(child.depth));
    expr.depth = depth + 1;
    if expr.depth > MAX_DEPTH { Err(too_deep(at)) } else { Ok(expr) }
}

fn too_deep(at: usize) -> Problem {
    Problem { at, message: "expression recursion limit exceeded: 250".to_owned() }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Spanned>,
    next: usize,
    nesting: usize,
}

type Parsed<T = Expr> = Result<T, Problem>;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].token
    }

    fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    fn shown(&self) -> &str {
        let Spanned { at, end, .. } = self.tokens[self.next];
        if at == end { "<EOF>" } else { &self.text[at..end] }
    }

    fn bump(&mut self) -> Spanned {
        let token = self.tokens[self.next].clone();
        // The last token, which ends the text, stays.
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn takes(&mut self, sign: &str) -> bool {
        let takes = matches!(self.peek(), Token::Sign(found) if *found == sign);
        if takes {
            self.bump();
        }
        takes
    }

    fn needs(&mut self, sign: &str) -> Parsed<()> {
        if self.takes(sign) {
            return Ok(());
        }
        Err(self.unexpected(&format!("'{sign}'")))
    }

    fn unexpected(&self, expected: &str) -> Problem {
        let message =
            format!("Syntax error: mismatched input '{}' expecting {expected}", self.shown());
        Problem { at: self.at(), message }
    }

    fn expression(&mut self) -> Parsed {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(too_deep(self.at()));
        }
        let condition = self.chain(Kind::Or, "||")?;
        let at = self.at();
        let parsed = if self.takes("?") {
            let yes = self.chain(Kind::Or, "||")?;
            self.needs(":")?;
            let no = self.expression()?;
            expr(at, Kind::Conditional(Box::new([condition, yes, no])))
        } else {
            Ok(condition)
        };
        self.nesting -= 1;
        parsed
    }

    /// `a || b || c`, and the same of `&&` one level below.
    fn chain(&mut self, kind: fn(Vec<Expr>) -> Kind, sign: &str) -> Parsed {
        let part = |parser: &mut Self| {
            if sign == "||" { parser.chain(Kind::And, "&&") } else { parser.binary(0) }
        };
        let first = part(self)?;
        let at = self.at();
        let mut all = vec![first];
        while self.takes(sign) {
            all.push(part(self)?);
        }
        match all.len() {
            1 => all.pop().ok_or_else(|| too_deep(at)),
            _ => expr(at, kind(all)),
        }
    }

    fn binary(&mut self, level: usize) -> Parsed {
        const LEVELS: [&[(&str, &str)]; 3] = [
            &[
                ("<", "_<_"),
                ("<=", "_<=_"),
                (">=", "_>=_"),
                (">", "_>_"),
                ("==", "_==_"),
                ("!=", "_!=_"),
            ],
            &[("+", "_+_"), ("-", "_-_")],
            &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
        ];
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            let function = match self.peek() {
                Token::Sign(sign) => operators.iter().find(|(found, _)| found == sign),
                Token::Name(name) if level == 0 && name == "in" => Some(&("in", "@in")),
                _ => None,
            };
            let Some((_, function)) = function else { return Ok(left) };
            let at = self.bump().at;
            let arguments = vec![left, self.binary(level + 1)?];
            left = call(at, function, arguments)?;
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        let mut count = 0;
        let (sign, function) = match self.peek() {
            Token::Sign("!") => ("!", "!_"),
            Token::Sign("-") => ("-", "-_"),
            _ => return self.member(),
        };
        while self.takes(sign) {
            count += 1;
        }
        if sign == "-" && count == 1 {
            // So that the least integer can be written.
            if let Token::Int(value) = *self.peek()
                && value == i64::MIN.unsigned_abs()
            {
                self.bump();
                return expr(at, Kind::Literal(Value::Int(i64::MIN)));
            }
        }
        let operand = self.member()?;
        // Twice is not at all.
        if count % 2 == 0 { Ok(operand) } else { call(at, function, vec![operand]) }
    }

    fn member(&mut self) -> Parsed {
        let mut operand = self.primary()?;
        loop {
            let at = self.at();
            if self.takes(".") {
                let optional = self.takes("?");
                let Token::Name(field) = self.peek().clone() else {
                    return Err(self.unexpected("IDENTIFIER"));
                };
                let name_at = self.bump().at;
                if !optional && matches!(self.peek(), Token::Sign("(")) {
                    let open = self.at();
                    self.bump();
                    let arguments = self.list_until(")", |parser| parser.expression())?;
                    operand = self.method(open, name_at, operand, field, arguments)?;
                } else {
                    operand =
                        expr(at, Kind::Select { operand: Box::new(operand), field, optional })?;
                }
            } else if self.takes("[") {
                let optional = self.takes("?");
                let index = Box::new(self.expression()?);
                self.needs("]")?;
                operand = expr(at, Kind::Index { operand: Box::new(operand), index, optional })?;
            } else if let Some(name) = self.struct_name(&operand) {
                self.bump();
                let fields = self.list_until("}", Self::field)?;
                operand = expr(operand.at, Kind::Struct { name, fields })?;
            } else {
                return Ok(operand);
            }
        }
    }

    /// The name of the type, if an object begins here.
    fn struct_name(&self, operand: &Expr) -> Option<String> {
        if matches!(self.peek(), Token::Sign("{")) { operand.qualified_name() } else { None }
    }

    fn method(
        &self,
        open: usize,
        name_at: usize,
        target: Expr,
        function: String,
        arguments: Vec<Expr>,
    ) -> Parsed {
        // `math.ceil(x)` is a function, not a method of `math`.
        if let Some(namespace) = target.qualified_name() {
            let qualified = format!("{namespace}.{function}");
            if qualified == "cel.bind" {
                return macros::bind(open, arguments);
            }
            if signatures::is_function(&qualified) {
                return expr(open, Kind::Call { function: qualified, target: None, arguments });
            }
        }
        macros::method(open, name_at, target, function, arguments)
    }

    /// Parts between commas, of which the last may be followed by one, up to a closing bracket.
    fn list_until<T>(&mut self, end: &str, part: fn(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut parts = Vec::new();
        while !self.takes(end) {
            parts.push(part(self)?);
            if !self.takes(",") {
                self.needs(end)?;
                break;
            }
        }
        Ok(parts)
    }

    fn field(&mut self) -> Parsed<Field> {
        let optional = self.takes("?");
        let Token::Name(name) = self.peek().clone() else {
            return Err(self.unexpected("IDENTIFIER"));
        };
        self.bump();
        let at = self.at();
        self.needs(":")?;
        Ok(Field { at, optional, name, value: self.expression()? })
    }

    fn primary(&mut self) -> Parsed {
        // A leading dot names the root, which is where all names are.
        self.takes(".");
        if matches!(self.peek(), Token::End | Token::Sign(")" | "]" | "}" | "," | ":" | "?" | "."))
        {
            return Err(self.unexpected(EXPECTED));
        }
        let Spanned { at, token, .. } = self.bump();
        match token {
            Token::Name(name) => self.name(at, name),
            Token::Int(value) => match i64::try_from(value) {
                Ok(value) => expr(at, Kind::Literal(Value::Int(value))),
                Err(_) => Err(Problem { at, message: "invalid int literal".to_owned() }),
            },
            Token::Uint(value) => expr(at, Kind::Literal(Value::UInt(value))),
            Token::Double(value) => expr(at, Kind::Literal(Value::Float(value))),
            Token::Text(text) => expr(at, Kind::Literal(Value::String(text.into()))),
            Token::Bytes(bytes) => expr(at, Kind::Literal(Value::Bytes(bytes.into()))),
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.needs(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                let items = self.list_until("]", |parser| {
                    Ok(Item { optional: parser.takes("?"), value: parser.expression()? })
                })?;
                expr(at, Kind::List(items))
            }
            Token::Sign("{") => {
                let entries = self.list_until("}", |parser| {
                    let optional = parser.takes("?");
                    let key = parser.expression()?;
                    parser.needs(":")?;
                    Ok(Entry { optional, key, value: parser.expression()? })
                })?;
                expr(at, Kind::Map(entries))
            }
            Token::Sign(sign) => {
                let message =
                    format!("Syntax error: extraneous input '{sign}' expecting {EXPECTED}");
                Err(Problem { at, message })
            }
            Token::End => Err(self.unexpected(EXPECTED)),
        }
    }

    fn name(&mut self, at: usize, name: String) -> Parsed {
        match name.as_str() {
            "true" => return expr(at, Kind::Literal(Value::Bool(true))),
            "false" => return expr(at, Kind::Literal(Value::Bool(false))),
            "null" => return expr(at, Kind::Literal(Value::Null)),
            "in" => {
                let message = format!("Syntax error: mismatched input 'in' expecting {EXPECTED}");
                return Err(Problem { at, message });
            }
            word if RESERVED.contains(&word) => {
                return Err(Problem { at, message: format!("reserved identifier: {word}") });
            }
            _ => (),
        }
        if !matches!(self.peek(), Token::Sign("(")) {
            return expr(at, Kind::Name(name));
        }
        let open = self.bump().at;
        let arguments = self.list_until(")", |parser| parser.expression())?;
        if name == "has" && arguments.len() == 1 {
            return macros::has(open, arguments);
        }
        expr(open, Kind::Call { function: name, target: None, arguments })
    }
}

/// The call of a function that is no method.
pub(crate) fn call(at: usize, function: &str, arguments: Vec<Expr>) -> Parsed {
    expr(at, Kind::Call { function: function.to_owned(), target: None, arguments })
}
