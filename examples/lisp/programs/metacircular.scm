; SPDX-License-Identifier: MIT
; metacircular.scm [-- N]: the Lisp in itself. An evaluator, in the way of J. McCarthy's of 1960 and of H. Abelson's and
; G. J. Sussman's "Structure and Interpretation of Computer Programs"; what it runs is at the end: among it Fibonacci
; numbers up to the N'th, 15 if it is not given.

; --- environments: lists of frames, which are lists of (name . value), in a pair that can be changed ---

(define (look-up name env)
  (if (null? env)
      (error "not defined within" name)
      (let ((found (assq name (cdr (car env)))))
        (if found found (look-up name (cdr env))))))

(define (define-in! env name value)
  (set-cdr! (car env) (cons (cons name value) (cdr (car env)))))

(define (extend env names values)
  (define (bind names values)
    (cond ((null? names) '())
          ((symbol? names) (list (cons names values)))
          (else (cons (cons (car names) (car values)) (bind (cdr names) (cdr values))))))
  (cons (cons 'frame (bind names values)) env))

; --- evaluation ---

(define (evaluate x env)
  (cond ((symbol? x) (cdr (look-up x env)))
        ((not (pair? x)) x)
        (else
         (let ((form (assq (car x) forms)))
           (if form
               ((cdr form) x env)
               (call-value (evaluate (car x) env)
                           (map (lambda (argument) (evaluate argument env)) (cdr x))))))))

(define (evaluate-all body env)
  (if (null? (cdr body))
      (evaluate (car body) env)
      (begin (evaluate (car body) env)
             (evaluate-all (cdr body) env))))

; A function is (closure names body environment), or one of the Lisp below.
(define (call-value f values)
  (if (pair? f)
      (evaluate-all (caddr f) (extend (car (cddr (cdr f))) (cadr f) values))
      (apply f values)))

(define (evaluate-cond clauses env)
  (cond ((null? clauses) #f)
        ((or (eq? (car (car clauses)) 'else) (evaluate (car (car clauses)) env))
         (evaluate-all (cdr (car clauses)) env))
        (else (evaluate-cond (cdr clauses) env))))

(define forms
  (list
   (cons 'quote (lambda (x env) (cadr x)))
   (cons 'if (lambda (x env)
               (if (evaluate (cadr x) env)
                   (evaluate (caddr x) env)
                   (evaluate (car (cddr (cdr x))) env))))
   (cons 'cond (lambda (x env) (evaluate-cond (cdr x) env)))
   (cons 'lambda (lambda (x env) (list 'closure (cadr x) (cddr x) env)))
   (cons 'begin (lambda (x env) (evaluate-all (cdr x) env)))
   (cons 'set! (lambda (x env) (set-cdr! (look-up (cadr x) env) (evaluate (caddr x) env))))
   (cons 'let (lambda (x env)
                (evaluate-all (cddr x)
                              (extend env
                                      (map car (cadr x))
                                      (map (lambda (pair) (evaluate (cadr pair) env)) (cadr x))))))
   (cons 'define (lambda (x env)
                   (if (pair? (cadr x))
                       (define-in! env (car (cadr x)) (list 'closure (cdr (cadr x)) (cddr x) env))
                       (define-in! env (cadr x) (evaluate (caddr x) env)))))))

(define global
  (list (cons 'frame
              (list (cons '+ +) (cons '- -) (cons '* *) (cons '= =) (cons '< <)
                    (cons 'car car) (cons 'cdr cdr) (cons 'cons cons) (cons 'list list)
                    (cons 'null? null?) (cons 'pair? pair?) (cons 'eq? eq?) (cons 'not not)
                    (cons 'print print)
                    (cons 'last (string->number (if (pair? (arguments)) (car (arguments)) "15")))))))

; --- what it runs ---

(for-each
 (lambda (x) (evaluate x global))
 '((define (factorial n)
     (if (= n 0) 1 (* n (factorial (- n 1)))))
   (print "factorial: " (factorial 5) " " (factorial 10) " " (factorial 19))

   (define (map f x)
     (if (null? x) '() (cons (f (car x)) (map f (cdr x)))))
   (define (append x y)
     (if (null? x) y (cons (car x) (append (cdr x) y))))
   (define (reverse x)
     (let ((so-far '()))
       (define (loop x)
         (if (null? x)
             so-far
             (begin (set! so-far (cons (car x) so-far))
                    (loop (cdr x)))))
       (loop x)))
   (print "lists: " (map (lambda (x) (* x x)) '(1 2 3 4 5)) " " (reverse (append '(a b) '(c d))))

   ; Recursion without a name.
   (define Y
     (lambda (f)
       ((lambda (x) (x x))
        (lambda (x) (f (lambda (y) ((x x) y)))))))
   (print "Y: "
          ((Y (lambda (self) (lambda (n) (if (= n 0) 1 (* n (self (- n 1))))))) 5)
          " "
          (map (Y (lambda (self) (lambda (n) (if (< n 2) n (+ (self (- n 1)) (self (- n 2)))))))
               '(1 2 3 4 5)))

   ; Numbers as functions, functions of any number of arguments, and a counter that remembers.
   (define (church n) (lambda (f) (lambda (x) (if (= n 0) x (f (((church (- n 1)) f) x))))))
   (define (plus a b) (lambda (f) (lambda (x) ((a f) ((b f) x)))))
   (print "church: " (((plus (church 3) (church 4)) (lambda (x) (+ x 1))) 0))
   (define (collect . x) x)
   (define counter
     (let ((n 0)) (lambda () (begin (set! n (+ n 1)) n))))
   (counter)
   (print "closures: " (collect 1 'two (counter) (counter)))

   ; Symbols: replace them, and bring a formula into a form in which not is before names alone.
   (define (replace new old x)
     (cond ((pair? x) (cons (replace new old (car x)) (replace new old (cdr x))))
           ((eq? x old) new)
           (else x)))
   (print "replaced: " (replace '(+ a 1) 'b '(* b (- c (* b d)))))
   (define (inwards x)
     (cond ((not (pair? x)) x)
           ((not (eq? (car x) 'not)) (cons (car x) (map inwards (cdr x))))
           (else (negated (car (cdr x))))))
   (define (negated x)
     (cond ((not (pair? x)) (list 'not x))
           ((eq? (car x) 'not) (inwards (car (cdr x))))
           ((eq? (car x) 'and) (cons 'or (map negated (cdr x))))
           (else (cons 'and (map negated (cdr x))))))
   (print "negation: " (inwards '(not (and p (or q (not (and r s)))))))

   (define (fib n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2)))))
   (define (fibs n) (if (< last n) '() (cons (fib n) (fibs (+ n 1)))))
   (print "fibonacci: " (fibs 1))))
