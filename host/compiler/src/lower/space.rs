//! The index space of a tile kernel: its axes in template order, joined where every address allows it.

use plan::Template;

use crate::Cluster;

/// Axes of the cluster in the order of the template, and how many belong to each group: parallel axes of a Map; rows
/// and reduced axes; outer, reduced and inner axes of a column sum.
pub struct Space {
    pub axes: Vec<usize>,
    groups: Vec<usize>,
    columns: bool,
}

impl Space {
    pub fn new(cluster: &Cluster) -> Space {
        let rank = cluster.dims.len();
        let kept = |axis: &usize| !cluster.reduced.contains(axis);
        let columns = cluster.folds_columns();
        let split =
            if columns { (0..rank).rev().find(|axis| !kept(axis)).map_or(0, |last| last + 1) } else { rank };
        let outer: Vec<usize> = (0..split).filter(kept).collect();
        let folded: Vec<usize> = (0..split).filter(|axis| !kept(axis)).collect();
        let inner: Vec<usize> = (split..rank).collect();
        let groups = vec![outer.len(), folded.len(), inner.len()];
        Space { axes: [outer, folded, inner].concat(), groups, columns }
    }

    /// Extents and template after joining neighbouring axes of a group, and the strides of each access likewise.
    ///
    /// `accesses` are strides over the cluster's axes. An axis of extent 1 vanishes; two neighbours join when every
    /// access walks them as one. A group that must not be empty keeps one axis.
    pub fn collapse(&self, dims: &[usize], accesses: &[Vec<i64>]) -> (Vec<usize>, Template, Vec<Vec<i64>>) {
        let mut out_dims: Vec<usize> = Vec::new();
        let mut out_strides: Vec<Vec<i64>> = vec![Vec::new(); accesses.len()];
        let mut counts = Vec::new();
        let mut start = 0;
        for (group, length) in self.groups.iter().enumerate() {
            let begin = out_dims.len();
            for axis in &self.axes[start..start + length] {
                let extent = dims[*axis];
                if extent == 1 {
                    continue;
                }
                let joins = out_dims.len() > begin
                    && accesses.iter().zip(&out_strides).all(|(access, out)| {
                        out.last().is_some_and(|last| *last == access[*axis] * extent as i64)
                    });
                if joins {
                    *out_dims.last_mut().expect("a neighbour was found above") *= extent;
                    for (access, out) in accesses.iter().zip(&mut out_strides) {
                        *out.last_mut().expect("same length as the extents") = access[*axis];
                    }
                } else {
                    out_dims.push(extent);
                    accesses.iter().zip(&mut out_strides).for_each(|(access, out)| out.push(access[*axis]));
                }
            }
            start += length;
            let needed = if self.columns { group > 0 } else { group == 1 && self.groups[1] > 0 };
            let lonely = group == 2 && out_dims.is_empty();
            if (needed && out_dims.len() == begin) || lonely {
                out_dims.push(1);
                out_strides.iter_mut().for_each(|out| out.push(0));
            }
            counts.push(out_dims.len() - begin);
        }
        let template = match (self.columns, counts[1]) {
            (true, reduced) => Template::ColReduce { outer: counts[0], reduced },
            (false, 0) => Template::Map,
            (false, reduced) => Template::RowReduce { reduced },
        };
        (out_dims, template, out_strides)
    }
}
