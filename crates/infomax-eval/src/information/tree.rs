//! A k-d tree in the maximum norm: nearest neighbors, and counts of rows within a distance.

use crate::matrix::Rows;

/// Rows in a leaf: they are compared one after the other.
const LEAF: usize = 16;
/// Above so many columns nearly every leaf is visited, and plain comparison of all rows is sooner done.
pub(super) const MAX_COLUMNS: usize = 8;

/// Rows in a binary tree of boxes. Distances are `max_j |x_j - y_j|`; all answers are exact, to the bit of what a
/// comparison with every row gives, as rounding is monotone.
pub(super) struct Tree {
    d: usize,
    /// The rows in the order of the leaves, each leaf column by column.
    points: Vec<f64>,
    /// Their numbers.
    order: Vec<u32>,
    nodes: Vec<Node>,
    /// Lower and upper corner of each node, `2 d` numbers.
    boxes: Vec<f64>,
}

#[derive(Clone, Copy)]
struct Node {
    start: u32,
    end: u32,
    /// The right child; the left one is the next node. 0 for a leaf.
    right: u32,
}

impl Tree {
    pub(super) fn new(rows: &Rows) -> Self {
        let mut order: Vec<u32> = (0..rows.n as u32).collect();
        let mut tree =
            Self { d: rows.d, points: Vec::new(), order: Vec::new(), nodes: Vec::new(), boxes: Vec::new() };
        tree.split(rows, &mut order, 0);
        tree.points = vec![0.0; rows.values.len()];
        for node in tree.nodes.iter().filter(|n| n.right == 0) {
            let (start, end) = (node.start as usize, node.end as usize);
            for (at, &i) in order[start..end].iter().enumerate() {
                for (j, v) in rows.row(i as usize).iter().enumerate() {
                    tree.points[start * rows.d + j * (end - start) + at] = *v;
                }
            }
        }
        tree.order = order;
        tree
    }

    fn split(&mut self, rows: &Rows, order: &mut [u32], start: usize) {
        let at = self.nodes.len();
        let corner = self.boxes.len();
        self.nodes.push(Node { start: start as u32, end: (start + order.len()) as u32, right: 0 });
        self.boxes.extend((0..self.d).map(|_| f64::INFINITY));
        self.boxes.extend((0..self.d).map(|_| f64::NEG_INFINITY));
        let (low, high) = self.boxes[corner..].split_at_mut(self.d);
        for &i in order.iter() {
            for ((l, h), v) in low.iter_mut().zip(high.iter_mut()).zip(rows.row(i as usize)) {
                *l = l.min(*v);
                *h = h.max(*v);
            }
        }
        let extents = low.iter().zip(high.iter()).map(|(l, h)| h - l).enumerate();
        let (axis, _) = extents.fold((0, 0.0), |best, (j, e)| if e > best.1 { (j, e) } else { best });
        if order.len() <= LEAF {
            return;
        }
        let middle = order.len() / 2;
        let key = |i: &u32| rows.row(*i as usize)[axis];
        order.select_nth_unstable_by(middle, |a, b| key(a).total_cmp(&key(b)).then(a.cmp(b)));
        let (left, right) = order.split_at_mut(middle);
        self.split(rows, left, start);
        self.nodes[at].right = self.nodes.len() as u32;
        self.split(rows, right, start + middle);
    }

    fn corners(&self, node: usize) -> (&[f64], &[f64]) {
        self.boxes[2 * self.d * node..2 * self.d * (node + 1)].split_at(self.d)
    }

    /// The least distance of a point to a box.
    fn nearest_of(&self, node: usize, x: &[f64]) -> f64 {
        let (low, high) = self.corners(node);
        let mut distance = 0f64;
        for ((l, h), x) in low.iter().zip(high).zip(x) {
            distance = larger(distance, larger(l - x, x - h));
        }
        distance
    }

    /// The distances and numbers of the `k` nearest rows but `own`, ascending; of equal distances the smaller number
    /// is the nearer.
    pub(super) fn nearest(&self, x: &[f64], own: usize, k: usize, found: &mut Vec<(f64, u32)>) {
        found.clear();
        self.visit(0, self.nearest_of(0, x), x, own as u32, k, found);
    }

    fn visit(&self, node: usize, distance: f64, x: &[f64], own: u32, k: usize, found: &mut Vec<(f64, u32)>) {
        let limit = |found: &Vec<(f64, u32)>| match found.last() {
            Some((largest, _)) if found.len() == k => *largest,
            _ => f64::INFINITY,
        };
        // Rows at the limit itself may still have a smaller number.
        if distance > limit(found) {
            return;
        }
        let Node { start, end, right } = self.nodes[node];
        if right > 0 {
            let (left, right) = (node + 1, right as usize);
            let (a, b) = (self.nearest_of(left, x), self.nearest_of(right, x));
            let (first, second) = if b < a { ((right, b), (left, a)) } else { ((left, a), (right, b)) };
            self.visit(first.0, first.1, x, own, k, found);
            self.visit(second.0, second.1, x, own, k, found);
            return;
        }
        let (start, end) = (start as usize, end as usize);
        let mut distances = [0f64; LEAF];
        let distances = &mut distances[..end - start];
        self.leaf(start, end, x, distances);
        for (&distance, &i) in distances.iter().zip(&self.order[start..end]) {
            let last = limit(found);
            if i == own || distance > last || (distance == last && found.last().is_some_and(|f| f.1 < i)) {
                continue;
            }
            let at = found.partition_point(|f| (f.0, f.1) < (distance, i));
            found.insert(at, (distance, i));
            found.truncate(k);
        }
    }

    /// The rows closer than `radius`, or with `edge` up to it, the row itself among them.
    pub(super) fn count(&self, x: &[f64], radius: f64, edge: bool) -> usize {
        if edge { self.within(0, x, &|r| r <= radius) } else { self.within(0, x, &|r| r < radius) }
    }

    fn within(&self, node: usize, x: &[f64], inside: &impl Fn(f64) -> bool) -> usize {
        let Node { start, end, right } = self.nodes[node];
        let (low, high) = self.corners(node);
        let (mut near, mut far) = (0f64, 0f64);
        for ((l, h), x) in low.iter().zip(high).zip(x) {
            let (below, above) = (l - x, x - h);
            near = larger(near, larger(below, above));
            far = larger(far, larger(-below, -above));
        }
        if !inside(near) {
            return 0;
        }
        if inside(far) {
            return (end - start) as usize;
        }
        if right > 0 {
            return self.within(node + 1, x, inside) + self.within(right as usize, x, inside);
        }
        let (start, end) = (start as usize, end as usize);
        let mut distances = [0f64; LEAF];
        let distances = &mut distances[..end - start];
        self.leaf(start, end, x, distances);
        distances.iter().map(|r| usize::from(inside(*r))).sum()
    }

    /// The distances of a point to the rows of a leaf.
    fn leaf(&self, start: usize, end: usize, x: &[f64], distances: &mut [f64]) {
        let columns = &self.points[start * self.d..end * self.d];
        for (column, x) in columns.chunks_exact(end - start).zip(x) {
            for (d, v) in distances.iter_mut().zip(column) {
                let difference = (v - x).abs();
                *d = larger(difference, *d);
            }
        }
    }
}

/// The larger of two numbers, none of which is NaN: without the branches of `f64::max` for it.
fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

/// Counts of rows of one variable within a distance.
pub(super) enum Counter {
    /// One column, ascending.
    Line(Vec<f64>),
    /// A few.
    Tree(Tree),
    /// Many: column by column, and the number of rows.
    All(Vec<f64>, usize),
}

impl Counter {
    pub(super) fn new(rows: &Rows) -> Self {
        match rows.d {
            1 => {
                let mut line = rows.values.clone();
                line.sort_unstable_by(f64::total_cmp);
                Self::Line(line)
            }
            d if d <= MAX_COLUMNS => Self::Tree(Tree::new(rows)),
            _ => Self::All(rows.transposed(), rows.n),
        }
    }

    /// The rows closer than `radius`, or with `edge` up to it, the row itself among them.
    pub(super) fn count(&self, x: &[f64], radius: f64, edge: bool) -> usize {
        match self {
            Self::Line(line) => {
                let x = x[0];
                let outside = |r: f64| if edge { r > radius } else { r >= radius };
                let from = line.partition_point(|v| *v <= x && outside(x - v));
                line[from..].partition_point(|v| !outside((v - x).abs()))
            }
            Self::Tree(tree) => tree.count(x, radius, edge),
            Self::All(columns, n) => {
                let inside = |r: &f64| u32::from(if edge { *r <= radius } else { *r < radius });
                super::entropy::max_distances(columns, *n, x).iter().map(inside).sum::<u32>() as usize
            }
        }
    }
}

/// Joint nearest neighbors of several variables in the maximum norm over all columns.
pub(super) enum Searcher {
    Tree(Tree, Rows),
    All(Vec<f64>, Rows),
}

impl Searcher {
    /// Over the columns of all of them side by side.
    pub(super) fn new(variables: &[&Rows]) -> Self {
        let rows = beside(variables);
        if rows.d <= MAX_COLUMNS {
            Self::Tree(Tree::new(&rows), rows)
        } else {
            Self::All(rows.transposed(), rows)
        }
    }

    /// The distances and numbers of the `k` nearest other rows of a row, ascending.
    pub(super) fn nearest(&self, i: usize, k: usize) -> Vec<(f64, u32)> {
        match self {
            Self::Tree(tree, rows) => {
                let mut found = Vec::with_capacity(k + 1);
                tree.nearest(rows.row(i), i, k, &mut found);
                found
            }
            Self::All(columns, rows) => {
                let distances = super::entropy::max_distances(columns, rows.n, rows.row(i));
                crate::geometry::smallest(rows.n, i, k, |j| distances[j])
            }
        }
    }
}

/// The columns of all variables, row by row.
pub(super) fn beside(variables: &[&Rows]) -> Rows {
    let n = variables.first().map_or(0, |v| v.n);
    let d = variables.iter().map(|v| v.d).sum();
    let values = (0..n).flat_map(|i| variables.iter().flat_map(move |v| v.row(i))).copied().collect();
    Rows { n, d, values }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infomax_core::Key;

    #[test]
    fn a_tree_answers_as_a_comparison_with_every_row() {
        for (d, levels) in [(1, 0.0), (2, 0.0), (3, 4.0), (6, 0.0), (8, 2.0)] {
            let device = candle_core::Device::Cpu;
            let x =
                Key::new(d).normal(0.0, 1.0, (300, d as usize), candle_core::DType::F64, &device).unwrap();
            let mut rows = Rows::read("op", "x", &x).unwrap();
            if levels > 0.0 {
                // Rounded: many rows at equal distances.
                rows.values.iter_mut().for_each(|v| *v = (*v * levels).round() / levels);
            }
            let (tree, counter) = (Tree::new(&rows), Counter::new(&rows));
            let mut found = Vec::new();
            for i in (0..300).step_by(7) {
                let distance = |j: usize| {
                    rows.row(i).iter().zip(rows.row(j)).fold(0f64, |m, (a, b)| m.max((a - b).abs()))
                };
                tree.nearest(rows.row(i), i, 5, &mut found);
                let mut all: Vec<(f64, u32)> =
                    (0..300).filter(|&j| j != i).map(|j| (distance(j), j as u32)).collect();
                all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                assert_eq!(found, all[..5]);
                for radius in [found[4].0, 0.0, 0.7] {
                    for edge in [false, true] {
                        let inside =
                            |j: &usize| if edge { distance(*j) <= radius } else { distance(*j) < radius };
                        let expected = (0..300).filter(inside).count();
                        assert_eq!(tree.count(rows.row(i), radius, edge), expected);
                        assert_eq!(counter.count(rows.row(i), radius, edge), expected);
                    }
                }
            }
        }
    }
}
