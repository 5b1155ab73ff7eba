//! The parser of expressions. From loose to tight: `||`, `&&`, one comparison, concatenation (with
//! or without `+`), `!`. VCL has no arithmetic in expressions; that is what `+=` and the like are for.

use super::lexer::{Complaint, Kind, Place, complain};
use super::parser::Parser;
use super::syntax::{Expression, Node};

const COMPARISONS: [&str; 8] = ["==", "!=", "<=", ">=", "!~", "<", ">", "~"];

impl Parser {
    pub(super) fn expression(&mut self) -> Result<Expression, Complaint> {
        let mut left = self.conjunction()?;
        while self.is_at("||") {
            let place = self.place();
            self.next();
            let right = self.conjunction()?;
            left = Expression { place, node: Node::Or(left.into(), right.into()) };
        }
        Ok(left)
    }

    fn conjunction(&mut self) -> Result<Expression, Complaint> {
        let mut left = self.comparison()?;
        while self.is_at("&&") {
            let place = self.place();
            self.next();
            let right = self.comparison()?;
            left = Expression { place, node: Node::And(left.into(), right.into()) };
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Expression, Complaint> {
        let left = self.joined()?;
        let Some(operator) = COMPARISONS.into_iter().find(|operator| self.is_at(operator)) else {
            return Ok(left);
        };
        let place = self.place();
        self.next();
        let right = self.joined()?;
        let node = match operator {
            "~" => Node::Match(true, left.into(), right.into()),
            "!~" => Node::Match(false, left.into(), right.into()),
            _ => Node::Compare(operator, left.into(), right.into()),
        };
        Ok(Expression { place, node })
    }

    fn joined(&mut self) -> Result<Expression, Complaint> {
        let first = self.unary()?;
        let place = first.place.clone();
        let mut parts = vec![first];
        loop {
            let goes_on = matches!(
                self.peek(),
                Kind::Text(_) | Kind::Name(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Span(_)
            );
            if !self.accept("+") && !goes_on {
                break;
            }
            parts.push(self.unary()?);
        }
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        Ok(Expression { place, node: Node::Join(parts) })
    }

    pub(super) fn unary(&mut self) -> Result<Expression, Complaint> {
        let place = self.place();
        if self.accept("!") {
            let inner = self.unary()?;
            return Ok(Expression { place, node: Node::Not(inner.into()) });
        }
        if self.accept("-") {
            return self.negated(place);
        }
        let node = match self.next() {
            Kind::Text(text) => Node::Text(text),
            Kind::Integer(value) => Node::Integer(value),
            Kind::Float(value) => Node::Float(value),
            Kind::Span(value) => Node::Span(value),
            Kind::Name(name) if name == "true" => Node::Bool(true),
            Kind::Name(name) if name == "false" => Node::Bool(false),
            Kind::Name(name) if self.is_at("(") => Node::Call(name, self.arguments()?),
            Kind::Name(name) => Node::Name(name),
            Kind::Symbol("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Node::Group(inner.into())
            }
            other => return complain(&place, format!("a value is wanted here, not {other:?}")),
        };
        Ok(Expression { place, node })
    }

    /// Only a literal can be negated in VCL.
    fn negated(&mut self, place: Place) -> Result<Expression, Complaint> {
        let node = match self.next() {
            Kind::Integer(value) => Node::Integer(-value),
            Kind::Float(value) => Node::Float(-value),
            Kind::Span(value) => Node::Span(-value),
            other => return complain(&place, format!("- negates only literals, not {other:?}")),
        };
        Ok(Expression { place, node })
    }

    pub(super) fn arguments(&mut self) -> Result<Vec<Expression>, Complaint> {
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.accept(")") {
            arguments.push(self.expression()?);
            if !self.is_at(")") {
                self.expect(",")?;
            }
        }
        Ok(arguments)
    }
}
