-- Answers a batch of queries: what matching.py and asking.py do for SQLite, where the triples are. One row a
-- result: the query's number, the names that it joins, its distance, and how many results the query has in all.
-- OFFSET 0 keeps lookups in an index, one for each pair, from being turned into scans of all triples.
WITH edge AS NOT MATERIALIZED (
  SELECT 'subject' AS known, subject AS entity, relation, object AS other FROM triples
  UNION ALL
  SELECT 'object', object, relation, subject FROM triples
),
query AS MATERIALIZED (
  SELECT number, known, entity::vector AS entity, entity::halfvec AS half, relation::vector AS relation
  FROM unnest(%(known)s::text[], %(entities)s::text[], %(relations)s::text[])
    WITH ORDINALITY AS asked (known, entity, relation, number)
),
-- Candidates. The index sees queries in half precision and takes ties as they come; so it is asked for some more than
-- are wanted, and their distances are taken again.
near_entity AS MATERIALIZED (
  SELECT q.number, q.known, e.id, e.distance
  FROM query q CROSS JOIN LATERAL (
    SELECT id, greatest(1 + (vector::vector <#> q.entity), 0) AS distance
    FROM (SELECT id, vector FROM entities ORDER BY vector <=> q.half LIMIT %(looked_at)s) seen
    ORDER BY distance, id LIMIT %(max_entities)s
  ) e
  WHERE e.distance < %(entity)s
),
near_relation AS MATERIALIZED (
  SELECT q.number, r.id, r.distance
  FROM query q CROSS JOIN LATERAL (
    SELECT id, greatest(1 + (vector::vector <#> q.relation), 0) AS distance
    FROM relations ORDER BY distance, id LIMIT %(max_relations)s
  ) r
  WHERE r.distance < %(relation)s
),
-- Pairs that are near enough and have triples; with an exact one among a query's, the exact ones only.
near_pair AS MATERIALIZED (
  SELECT e.number, e.known, e.id AS entity, r.id AS relation, (e.distance + r.distance) / 2 AS distance
  FROM near_entity e JOIN near_relation r ON r.number = e.number
  WHERE (e.distance + r.distance) / 2 < %(pair)s
),
stored_pair AS (
  SELECT p.*, min(distance) OVER (PARTITION BY number) AS smallest
  FROM near_pair p CROSS JOIN LATERAL (
    SELECT 1 FROM edge t WHERE t.known = p.known AND t.entity = p.entity AND t.relation = p.relation LIMIT 1
  ) found
),
matching_pair AS MATERIALIZED (
  SELECT number, known, entity, relation, distance
  FROM stored_pair WHERE distance < %(exact)s OR smallest >= %(exact)s
),
-- How many triples each has, counted once for all queries of a batch.
size AS MATERIALIZED (
  SELECT p.known, p.entity, p.relation, counted.triples
  FROM (SELECT DISTINCT known, entity, relation FROM matching_pair) p CROSS JOIN LATERAL (
    SELECT count(*) AS triples FROM edge t
    WHERE t.known = p.known AND t.entity = p.entity AND t.relation = p.relation
  ) counted
),
-- Beside each pair, the one of its query that has the most, and the distance of the nearest that has enough alone.
pair AS MATERIALIZED (
  SELECT p.*, s.triples, first_value(entity) OVER by_size AS hub, first_value(relation) OVER by_size AS hub_relation,
    min(distance) FILTER (WHERE s.triples >= %(max_results)s) OVER (PARTITION BY number) AS enough
  FROM matching_pair p JOIN size s USING (known, entity, relation)
  WINDOW by_size AS (PARTITION BY number ORDER BY s.triples DESC, entity, relation)
),
-- Distinct results: all of the pair that has the most, and of the others what that has not. So a hub is never sorted.
total AS MATERIALIZED (
  SELECT p.number, max(p.triples) + count(DISTINCT beyond.other) AS results
  FROM pair p LEFT JOIN LATERAL (
    SELECT other FROM edge t
    WHERE t.known = p.known AND t.entity = p.entity AND t.relation = p.relation
      AND (p.entity <> p.hub OR p.relation <> p.hub_relation)
      AND NOT EXISTS (
        SELECT 1 FROM edge h
        WHERE h.known = p.known AND h.entity = p.hub AND h.relation = p.hub_relation AND h.other = t.other OFFSET 0
      )
    OFFSET 0
  ) beyond ON true
  GROUP BY p.number
),
-- The triples of one pair are about distinct entities. So none has to be read that is farther than one with enough.
closest AS (
  SELECT DISTINCT ON (p.number, t.other) p.number, p.entity, p.relation, t.other, p.distance
  FROM pair p CROSS JOIN LATERAL (
    SELECT other FROM edge t
    WHERE t.known = p.known AND t.entity = p.entity AND t.relation = p.relation
    ORDER BY other LIMIT %(max_results)s
  ) t
  WHERE p.enough IS NULL OR p.distance <= p.enough
  ORDER BY p.number, t.other, p.distance, p.entity, p.relation
),
result AS MATERIALIZED (
  SELECT *, row_number() OVER (PARTITION BY number ORDER BY distance, other) AS place FROM closest
)
SELECT
  number - 1,
  (SELECT name FROM entities WHERE id = r.entity),
  (SELECT name FROM relations WHERE id = r.relation),
  (SELECT name FROM entities WHERE id = r.other),
  r.distance,
  total.results
FROM result r JOIN total USING (number)
WHERE r.place <= %(max_results)s
ORDER BY number, r.place
